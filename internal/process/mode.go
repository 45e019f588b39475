package process

import (
	"os"
	"runtime"
)

// Mode is how a restart hands over.
type Mode string

// ModeExec replaces the image of this process: the process id, the lock and the listener stay.
// ModeInPlace starts again inside this process image; it is also what every other mode falls back to.
const (
	ModeExec    Mode = "exec"
	ModeInPlace Mode = "in-process"
	// ModeSupervisor ends this process with an exit code that asks the supervisor for a fresh start.
	ModeSupervisor Mode = "supervisor"
)

// Choose decides the mode for a configured value and says why.
func Choose(configured string) (mode Mode, why string) {
	switch {
	case configured == string(ModeInPlace) && os.Getenv("GATEWAY_NO_RESPAWN") == "1":
		return ModeInPlace, "GATEWAY_NO_RESPAWN=1"
	case configured == string(ModeInPlace) || configured == string(ModeExec) || configured == string(ModeSupervisor):
		return Mode(configured), "configured"
	case runtime.GOOS == "windows":
		return ModeInPlace, "auto: this system cannot replace a process image"
	default:
		return ModeExec, "auto: the process id stays, so no supervisor notices"
	}
}
