package fsm

// Mode is how a restart hands over, the setting `lifecycle.respawn`.
type Mode string

// The modes. Auto is replaced by one of the others before anything asks for it.
const (
	// ModeAuto chooses by what surrounds the process.
	ModeAuto Mode = "auto"
	// ModeExec replaces the image of this process: the process id, the lock and the listener stay.
	ModeExec Mode = "exec"
	// ModeSpawn hands over to a process of its own.
	ModeSpawn Mode = "spawn"
	// ModeInPlace starts again inside this process image; every other mode falls back to it.
	ModeInPlace Mode = "in-process"
	// ModeSupervisor ends this process with an exit code that asks the supervisor for a fresh start.
	ModeSupervisor Mode = "supervisor"
)

// ModeSpec is a row of the list of modes.
type ModeSpec struct {
	Name Mode
	// Next is what the next gateway is.
	Next string
	// Carried is what becomes of connections that wait for an answer.
	Carried string
	// Instead is what happens where the mode cannot be.
	Instead string
}

// Modes lists the modes. Nobody else lists them.
func Modes() []ModeSpec {
	return []ModeSpec{
		{ModeAuto, "that of exec; with TLS, that of spawn", "as in the mode chosen", "in-process: as process 1, whose signals the kernel drops while an image is replaced"},
		{ModeExec, "the next image of this process, from the executable on disk: the process id stays", "carried to the next image", "in-process: with TLS, or when the image cannot be replaced"},
		{ModeSpawn, "a process of its own, which starts beside this one. Started from a terminal, it ends up in the background", "carried to the successor", "exec or in-process: under a supervisor that does not follow a successor. In-process: as process 1"},
		{ModeSupervisor, "whatever the supervisor starts once this process has ended with exit code 75", "refused with 503; with socket activation no new connection is refused", "–"},
		{ModeInPlace, "this process, with the configuration on disk. `GATEWAY_NO_RESPAWN=1` chooses it", "kept in this process", "–"},
	}
}

// ModeNames lists the names of the modes.
func ModeNames() []string {
	var names []string
	for _, m := range Modes() {
		names = append(names, string(m.Name))
	}
	return names
}
