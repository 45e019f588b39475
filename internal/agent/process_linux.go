package agent

import "syscall"

// processAttributes puts the child in a process group of its own, and lets it die with the gateway: after
// a kill -9 it must not go on beside the second attempt of its turn.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
