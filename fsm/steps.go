package fsm

// HandoverStep is one step of a hand-over: who does it, what it is, and what happens when the process dies there or
// the step fails or hangs.
type HandoverStep struct{ Who, Does, Dies, Fails string }

// HandoverSteps lists what a mode does, step by step. For [ModeSpawn], Dies is what happens when the old process dies
// at the step, and Fails when the new one dies or hangs: the model of both processes and the tests with real ones find
// that. Nil for a mode without steps of its own.
func HandoverSteps(mode Mode) []HandoverStep {
	const (
		goesOn    = "the restart is called off, and the old process serves as before"
		inPlace   = "the old process kills the new one after `respawn_timeout` at the latest, and starts again in place"
		alone     = "the new process goes on alone"
		both      = "both end; the next start finds everything on disk"
		onDisk    = "the next start finds everything on disk"
		calledOff = "the restart is called off, and the gateway serves as before"
		again     = "a restart in place"
	)
	switch mode {
	case ModeSpawn:
		return []HandoverStep{
			{"old, Draining", "starts the new process with one end of a pair of sockets, and nothing else", both, goesOn},
			{"new", "reads and checks the configuration, sends `prepared`", "the new process ends", goesOn},
			{"old, Draining", "stops the lanes, waits for the turns that run", "the new process ends", "noticed in Respawning"},
			{"old, ShuttingDown", "ends streams, interrupts what still runs, closes the store", "the new process ends", "noticed in Respawning"},
			{"old, Respawning", "sends `go` with copies of the lock, the listeners and the carried connections, and what was read from them", "the new process has all or nothing: it goes on alone, or ends", inPlace},
			{"new, Starting", "opens the store under a new epoch, sends `ready`; touches nothing else", alone, inPlace},
			{"old, Respawning", "sends `serve`, in one instant with the hop to Stopped: the point of no return", alone, inPlace},
			{"new, Running", "accepts, answers what waited, starts turns", "nothing happens: the old process has no part in it any more", "the gateway has died or hangs, as at any other time"},
			{"old, Stopped", "ends the answers that it still gives, and passes each connection on as it becomes idle", "those answers are cut", "as above"},
		}
	case ModeExec:
		return []HandoverStep{
			{"this image, Draining", "starts the executable on disk with the question whether it could take over, which reads and checks the configuration and ends", onDisk, calledOff},
			{"this image, Draining", "stops the lanes, waits for the turns that run", onDisk, "`drain_timeout` ends the wait"},
			{"this image, ShuttingDown", "ends streams, interrupts what still runs, closes the store", onDisk, "forced exit after `shutdown_timeout`"},
			{"this image, Respawning", "takes the connections that wait for an answer from the server", onDisk, again},
			{"this image, Respawning", "replaces itself, in one instant with the hop to Stopped: the point of no return. Lock, listeners and carried connections stay open", onDisk, again},
			{"next image, Starting", "opens the store under a new epoch", onDisk, "the process ends, and its supervisor starts it again"},
			{"next image, Running", "accepts, answers what waited, starts turns", onDisk, "as at any other time"},
		}
	case ModeInPlace:
		return []HandoverStep{
			{"this process, Draining", "reads and checks the configuration on disk", onDisk, calledOff},
			{"this process, Draining", "stops the lanes, waits for the turns that run", onDisk, "`drain_timeout` ends the wait"},
			{"this process, ShuttingDown", "ends streams, interrupts what still runs, closes the store", onDisk, "forced exit after `shutdown_timeout`"},
			{"this process, Respawning", "declines to hand over", onDisk, "–"},
			{"this process, Starting", "puts the new configuration in force, opens the store under a new epoch: a new generation", onDisk, "the process ends, and its supervisor starts it again"},
			{"this process, Running", "answers what waited, starts turns", onDisk, "as at any other time"},
		}
	case ModeAuto, ModeSupervisor:
	}
	return nil
}

// Promises hold while a gateway hands over to a successor, whoever of the two dies or hangs at whatever moment.
// A model of both, on two running machines, checks each by its name.
var Promises = []string{
	PromiseLanes, PromiseStore, PromiseFence, PromiseAccept, PromiseListener, PromiseLock, PromiseEnd,
}

// The promises by their names.
const (
	PromiseLanes    = "never two owners of the lanes"
	PromiseStore    = "the store is open in one process at most"
	PromiseFence    = "whoever owns the lanes opened the store last"
	PromiseAccept   = "only a process that nobody may take back accepts connections and owns the lanes"
	PromiseListener = "the listener is open in some process as long as any of them lives and has not stopped"
	PromiseLock     = "whoever has the store or the listener open has the instance lock"
	PromiseEnd      = "always eventually exactly one serves, or none after a stop, or when the one in charge was killed or gave up at a deadline of its own; never two"
)
