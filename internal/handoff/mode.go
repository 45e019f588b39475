package handoff

import (
	"os"

	"gateway/fsm"
)

// Surroundings decide how a restart can hand over. The zero value is a process that nobody supervises.
type Surroundings struct {
	// Supervisor names what supervises this process; empty when nothing known does.
	Supervisor string
	// Follows: the supervisor can be told the process id of a successor.
	Follows bool
	// First: this is process 1 of its namespace, with which every other process there ends.
	First bool
	// NoRespawn: GATEWAY_NO_RESPAWN=1, which the configuration has read.
	NoRespawn bool
	// UnderFirst: the parent is process 1, which in a container may be an init that ends with its child.
	UnderFirst bool
	// TLS: clients' connections have a state that only this process image knows.
	TLS bool
}

// Look finds the surroundings of this process in its environment.
func Look() Surroundings {
	s := Surroundings{First: os.Getpid() == 1, UnderFirst: os.Getppid() == 1}
	switch {
	case os.Getenv("NOTIFY_SOCKET") != "":
		s.Supervisor, s.Follows = "systemd, by its notification socket", true
	case os.Getenv("INVOCATION_ID") != "" && os.Getenv("SYSTEMD_EXEC_PID") != "":
		s.Supervisor = "systemd"
	case os.Getenv("XPC_SERVICE_NAME") != "" && os.Getenv("XPC_SERVICE_NAME") != "0": // terminals on macOS set 0
		s.Supervisor = "launchd"
	case os.Getenv("GATEWAY_SUPERVISED") == "1":
		s.Supervisor = "GATEWAY_SUPERVISED=1"
	}
	return s
}

// Choose decides the mode for a configured value and says why.
func (s Surroundings) Choose(configured fsm.Mode) (mode fsm.Mode, why string) {
	by := ""
	if s.Supervisor != "" {
		by = "; supervised by " + s.Supervisor
	}
	const sealed = "TLS connections cannot be carried over an exec; a new executable needs gateway stop, then gateway run"
	switch mode := configured; {
	case s.NoRespawn:
		return fsm.ModeInPlace, "GATEWAY_NO_RESPAWN=1"
	case mode == fsm.ModeSpawn && s.First:
		return fsm.ModeInPlace, "spawn is configured, but this is process 1: a successor would end with it"
	case mode == fsm.ModeSpawn && s.Supervisor != "" && !s.Follows && s.TLS:
		return fsm.ModeInPlace, "spawn is configured, but " + s.Supervisor + " would take the end of this process for the end of the gateway, and " + sealed
	case mode == fsm.ModeExec && s.TLS:
		return fsm.ModeInPlace, "exec is configured, but " + sealed
	case mode == fsm.ModeSpawn && s.Supervisor != "" && !s.Follows:
		return fsm.ModeExec, "spawn is configured, but " + s.Supervisor + " would take the end of this process for the end of the gateway"
	case mode == fsm.ModeExec, mode == fsm.ModeSpawn, mode == fsm.ModeInPlace, mode == fsm.ModeSupervisor:
		return mode, "configured" + by
	case s.First:
		return fsm.ModeInPlace, "auto: this is process 1, to which the kernel delivers no stop while its image is replaced"
	case s.TLS && s.Supervisor != "" && !s.Follows:
		return fsm.ModeInPlace, "auto: " + s.Supervisor + " would take the end of this process for the end of the gateway, and " + sealed
	case s.TLS && !s.Follows && s.UnderFirst:
		return fsm.ModeInPlace, "auto: process 1 may end with this process, and " + sealed
	case s.TLS:
		return fsm.ModeSpawn, "auto: with TLS this process answers its connections to their end, beside its successor" + by
	default:
		return fsm.ModeExec, "auto: the process id stays, so no supervisor notices" + by
	}
}
