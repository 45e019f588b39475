package handoff

import (
	"os"
	"runtime"
)

// Mode is how a restart hands over.
type Mode string

const (
	// ModeExec replaces the image of this process: the process id, the lock and the listener stay.
	ModeExec Mode = "exec"
	// ModeSpawn hands over to a process of its own.
	ModeSpawn Mode = "spawn"
	// ModeInPlace starts again inside this process image; it is also what every other mode falls back to.
	ModeInPlace Mode = "in-process"
	// ModeSupervisor ends this process with an exit code that asks the supervisor for a fresh start.
	ModeSupervisor Mode = "supervisor"
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
	// CanExec: this system can replace a process image.
	CanExec bool
	// TLS: clients' connections have a state that only this process image knows.
	TLS bool
}

// Look finds the surroundings of this process in its environment.
func Look() Surroundings {
	s := Surroundings{First: os.Getpid() == 1, UnderFirst: os.Getppid() == 1, CanExec: runtime.GOOS != "windows"}
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
func (s Surroundings) Choose(configured string) (mode Mode, why string) {
	by := ""
	if s.Supervisor != "" {
		by = "; supervised by " + s.Supervisor
	}
	const sealed = "TLS connections cannot be carried over an exec; a new executable needs gateway stop, then gateway run"
	switch mode := Mode(configured); {
	case s.NoRespawn:
		return ModeInPlace, "GATEWAY_NO_RESPAWN=1"
	case mode == ModeSpawn && s.First:
		return ModeInPlace, "spawn is configured, but this is process 1: a successor would end with it"
	case mode == ModeSpawn && s.Supervisor != "" && !s.Follows && s.TLS:
		return ModeInPlace, "spawn is configured, but " + s.Supervisor + " would take the end of this process for the end of the gateway, and " + sealed
	case mode == ModeExec && s.TLS:
		return ModeInPlace, "exec is configured, but " + sealed
	case mode == ModeSpawn && s.Supervisor != "" && !s.Follows:
		return ModeExec, "spawn is configured, but " + s.Supervisor + " would take the end of this process for the end of the gateway"
	case mode == ModeExec && !s.CanExec:
		return ModeInPlace, "exec is configured, but this system cannot replace a process image"
	case mode == ModeExec, mode == ModeSpawn, mode == ModeInPlace, mode == ModeSupervisor:
		return mode, "configured" + by
	case s.First:
		return ModeInPlace, "auto: this is process 1, to which the kernel delivers no stop while its image is replaced"
	case !s.CanExec:
		return ModeInPlace, "auto: this system cannot replace a process image"
	case s.TLS && s.Supervisor != "" && !s.Follows:
		return ModeInPlace, "auto: " + s.Supervisor + " would take the end of this process for the end of the gateway, and " + sealed
	case s.TLS && !s.Follows && s.UnderFirst:
		return ModeInPlace, "auto: process 1 may end with this process, and " + sealed
	case s.TLS:
		return ModeSpawn, "auto: with TLS this process answers its connections to their end, beside its successor" + by
	default:
		return ModeExec, "auto: the process id stays, so no supervisor notices" + by
	}
}
