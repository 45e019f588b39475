//go:build !linux

package agent

import "syscall"

// processAttributes puts the child in a process group of its own. Only Linux lets it die with the gateway.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
