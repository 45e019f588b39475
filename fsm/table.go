package fsm

// Lifecycle returns the table of the gateway, a fresh copy at each call.
func Lifecycle() Table {
	to := func(from State, ev Event, to State, ef Effect, why string) Cell {
		return Cell{State: from, Event: ev, Kind: Transition, To: to, Effect: ef, Why: why}
	}
	ignored := func(s State, ev Event, why string) Cell {
		return Cell{State: s, Event: ev, Kind: Ignored, Why: why}
	}
	postponed := func(s State, ev Event, why string) Cell {
		return Cell{State: s, Event: ev, Kind: Postponed, Why: why}
	}
	never := func(s State, ev Event, why string) Cell {
		return Cell{State: s, Event: ev, Kind: Impossible, Why: why}
	}
	intend := func(c Cell, i Intent) Cell { c.Intent = i; return c }
	exit := func(c Cell, code int) Cell { c.Exit = code; return c }

	return Table{
		Initial: Starting, First: EffectStart, Final: Stopped,

		States: []StateSpec{
			{
				Name: Starting, Admission: Held, Starts: false,
				Invariant: "the instance lock is held or being taken; nothing is served yet",
				Client:    "on a first start the connection is refused; on a restart it is accepted and held until Running",
				Deadlines: []DeadlineSpec{{[]Setting{StartTimeout}, StartFailed}},
			},
			{
				Name: Running, Admission: Open, Starts: true,
				Invariant: "serving, ready",
				Client:    "everything works; `/readyz` answers 200",
			},
			{
				Name: Draining, Admission: Open, Starts: false,
				Invariant: "serving; turns start until the successor is prepared, then those that run may finish and further ones wait",
				Client:    "everything works, but once the successor is prepared new turns are written down and wait; `/readyz` answers 503",
				Deadlines: []DeadlineSpec{
					{[]Setting{DrainTimeout}, DrainTimedOut},
					{[]Setting{DrainTimeout, ShutdownTimeout}, ForceExit},
				},
			},
			{
				Name: ShuttingDown, Admission: Held, Starts: false,
				Invariant: "clients are told and closed politely; the store is flushed",
				Client:    "open streams end with a `shutdown` notice; requests wait at the gate (restart) or get 503 with Retry-After (stop)",
				Deadlines: []DeadlineSpec{{[]Setting{ShutdownTimeout}, ForceExit}},
			},
			{
				Name: Respawning, Admission: Held, Starts: false,
				Invariant: "closed; the successor is taking over, or the mode says stay in this process",
				Client:    "connections are accepted by the kernel and wait; held requests wait",
				Deadlines: []DeadlineSpec{{[]Setting{RespawnTimeout}, RespawnFailed}},
			},
			{
				Name: Stopped, Admission: Refused, Starts: false,
				Invariant: "the lock is released; the exit code is decided",
				Client:    "the connection is refused, or the successor answers",
			},
		},

		Events: []EventSpec{
			{Stop, ByRequest, "SIGTERM, SIGINT, `gateway stop`, the API"},
			{Restart, ByRequest, "`gateway restart`, the API, SIGHUP with a valid configuration, SIGUSR1 when authorised"},
			{Resume, ByRequest, "`gateway resume`, the API; the drain, when the successor cannot be prepared"},
			{Started, ByOutcome, "the effect start: lock, store and listener are there"},
			{StartFailed, ByOutcome, "the effect start; the deadline of Starting"},
			{ServerFailed, ByOutcome, "the server, when its listener fails while it serves"},
			{Drained, ByOutcome, "the effect drain: nothing runs any more and the successor is prepared"},
			{DrainTimedOut, ByDeadline, "the deadline of Draining; the effect drain, when a restart asked for less time and the successor is prepared"},
			{Closed, ByOutcome, "the effect close, when a stop is intended"},
			{ClosedForRestart, ByOutcome, "the effect close, when a restart is intended"},
			{Respawned, ByOutcome, "the effect respawn: the successor has taken over"},
			{RespawnDeclined, ByOutcome, "the effect respawn: the mode says stay in this process"},
			{RespawnFailed, ByOutcome, "the effect respawn; the deadline of Respawning"},
			{ForceExit, ByDeadline, "the deadline of ShuttingDown, and of a Draining that outlived its own"},
		},

		Effects: []EffectSpec{
			{Name: EffectStart, Does: "take the lock, listen, open the store and recover its lanes", Outcomes: []Event{Started, StartFailed}, Panic: StartFailed},
			{Name: EffectOpen, Does: "publish ready, tell the supervisor, release the lanes", Panic: ServerFailed},
			{Name: EffectDrain, Does: "prepare the successor, then stop the lanes and wait for the turns that run", Outcomes: []Event{Drained, DrainTimedOut, Resume}, Panic: Resume},
			{Name: EffectResume, Does: "dismiss the successor, release the lanes again", Panic: ServerFailed},
			{Name: EffectClose, Does: "tell clients, interrupt what still runs (it goes back to the head of its lane), close politely, flush the store", Outcomes: []Event{Closed, ClosedForRestart}, Panic: Closed},
			{Name: EffectRespawn, Does: "hand over to the successor, or decline where the mode says stay in this process", Outcomes: []Event{Respawned, RespawnDeclined, RespawnFailed}, Panic: RespawnFailed},
			{Name: EffectReset, Does: "dismiss the successor, reset the lanes (a new generation), then start again", Outcomes: []Event{Started, StartFailed}, Panic: StartFailed},
			{Name: EffectRelease, Does: "stop the successor unless it has taken over, release the lock"},
			{Name: EffectAbandon, Does: "log \"shutdown timed out; exiting without full cleanup\"; what was accepted is on disk", AtOnce: true},
		},

		Cells: []Cell{
			// Starting
			to(Starting, Started, Running, EffectOpen, "ready"),
			exit(to(Starting, StartFailed, Stopped, EffectRelease, "the start cannot succeed; exit 78 when a person must act first, else 1"), 1),
			intend(to(Starting, Stop, ShuttingDown, EffectClose, "the start is cancelled; what it had opened is closed"), IntentStop),
			postponed(Starting, Restart, "waits for Running, then restarts"),
			ignored(Starting, Resume, "no restart is draining, so there is none to call off"),
			postponed(Starting, ServerFailed, "waits for the start to report"),
			never(Starting, Drained, "nothing drains"),
			never(Starting, DrainTimedOut, "nothing drains"),
			never(Starting, Closed, "nothing closes"),
			never(Starting, ClosedForRestart, "nothing closes"),
			never(Starting, Respawned, "nothing respawns"),
			never(Starting, RespawnDeclined, "nothing respawns"),
			never(Starting, RespawnFailed, "nothing respawns"),
			never(Starting, ForceExit, "the deadline here is start_failed"),

			// Running
			intend(to(Running, Stop, ShuttingDown, EffectClose, "a stop waits for no turn: those that run are interrupted and kept"), IntentStop),
			intend(to(Running, Restart, Draining, EffectDrain, "turns that run may finish first"), IntentRestart),
			exit(intend(to(Running, ServerFailed, ShuttingDown, EffectClose, "nothing can be served any more; exit 3"), IntentStop), 3),
			ignored(Running, Resume, "no restart is draining, so there is none to call off"),
			never(Running, Started, "started already"),
			never(Running, StartFailed, "started already"),
			never(Running, Drained, "nothing drains"),
			never(Running, DrainTimedOut, "nothing drains"),
			never(Running, Closed, "nothing closes"),
			never(Running, ClosedForRestart, "nothing closes"),
			never(Running, Respawned, "nothing respawns"),
			never(Running, RespawnDeclined, "nothing respawns"),
			never(Running, RespawnFailed, "nothing respawns"),
			never(Running, ForceExit, "Running has no deadline"),

			// Draining
			to(Draining, Drained, ShuttingDown, EffectClose, "nothing runs and the successor is prepared"),
			to(Draining, DrainTimedOut, ShuttingDown, EffectClose, "what still runs is interrupted and goes back to the head of its lane"),
			intend(to(Draining, Resume, Running, EffectResume, "the restart is called off; nothing was torn down"), IntentNone),
			intend(to(Draining, Stop, ShuttingDown, EffectClose, "a stop outranks a restart"), IntentStop),
			exit(to(Draining, ForceExit, Stopped, EffectAbandon, "the drain outlived its own deadline; exit 2"), 2),
			ignored(Draining, Restart, "coalesced with the restart that is under way"),
			postponed(Draining, ServerFailed, "a restart repairs it; should the restart be called off, it stops the gateway"),
			never(Draining, Started, "started already"),
			never(Draining, StartFailed, "started already"),
			never(Draining, Closed, "nothing closes yet"),
			never(Draining, ClosedForRestart, "nothing closes yet"),
			never(Draining, Respawned, "nothing respawns yet"),
			never(Draining, RespawnDeclined, "nothing respawns yet"),
			never(Draining, RespawnFailed, "nothing respawns yet"),

			// ShuttingDown
			to(ShuttingDown, Closed, Stopped, EffectRelease, "closed with the intent to stop; exits with the remembered code, else 0"),
			to(ShuttingDown, ClosedForRestart, Respawning, EffectRespawn, "closed with the intent to restart"),
			intend(Cell{State: ShuttingDown, Event: Stop, Kind: Internal, Why: "a restart becomes a stop; a second stop changes nothing"}, IntentStop),
			exit(to(ShuttingDown, ForceExit, Stopped, EffectAbandon, "shutdown timed out; exiting without full cleanup; exit 2"), 2),
			ignored(ShuttingDown, Restart, "coalesced with a restart that is under way; a stop outranks it"),
			ignored(ShuttingDown, Resume, "too late: clients have been told"),
			ignored(ShuttingDown, ServerFailed, "the server is being closed"),
			never(ShuttingDown, Started, "a start that was cancelled reports late and is dropped"),
			never(ShuttingDown, StartFailed, "a start that was cancelled reports late and is dropped"),
			never(ShuttingDown, Drained, "the drain is over"),
			never(ShuttingDown, DrainTimedOut, "the drain is over"),
			never(ShuttingDown, Respawned, "nothing respawns yet"),
			never(ShuttingDown, RespawnDeclined, "nothing respawns yet"),
			never(ShuttingDown, RespawnFailed, "nothing respawns yet"),

			// Respawning
			to(Respawning, Respawned, Stopped, EffectRelease, "the successor is ready and held requests are with it; exit 0"),
			intend(to(Respawning, RespawnDeclined, Starting, EffectReset, "restart in place, in this process"), IntentNone),
			intend(to(Respawning, RespawnFailed, Starting, EffectReset, "restart in place, with a warning that says why"), IntentNone),
			intend(to(Respawning, Stop, Stopped, EffectRelease, "all is closed already; the successor, if any, is stopped too"), IntentStop),
			ignored(Respawning, Restart, "coalesced with the restart that is under way"),
			ignored(Respawning, Resume, "too late: all is closed"),
			ignored(Respawning, ServerFailed, "the next start opens what is missing"),
			never(Respawning, Started, "this process starts nothing now"),
			never(Respawning, StartFailed, "this process starts nothing now"),
			never(Respawning, Drained, "the drain is over"),
			never(Respawning, DrainTimedOut, "the drain is over"),
			never(Respawning, Closed, "closed already"),
			never(Respawning, ClosedForRestart, "closed already"),
			never(Respawning, ForceExit, "the deadline here is respawn_failed"),

			// Stopped
			ignored(Stopped, Stop, "the process ends"),
			ignored(Stopped, Restart, "the process ends"),
			ignored(Stopped, Resume, "the process ends"),
			ignored(Stopped, ServerFailed, "the process ends"),
			never(Stopped, Started, "nothing is under way"),
			never(Stopped, StartFailed, "nothing is under way"),
			never(Stopped, Drained, "nothing is under way"),
			never(Stopped, DrainTimedOut, "nothing is under way"),
			never(Stopped, Closed, "nothing is under way"),
			never(Stopped, ClosedForRestart, "nothing is under way"),
			never(Stopped, Respawned, "nothing is under way"),
			never(Stopped, RespawnDeclined, "nothing is under way"),
			never(Stopped, RespawnFailed, "nothing is under way"),
			never(Stopped, ForceExit, "nothing is under way"),
		},
	}
}

// Invariants hold in every situation that the machine can come into. The exploration of the machine checks
// each by its name.
var Invariants = []string{
	InvariantDeadline, InvariantAlternate, InvariantLock, InvariantRelease, InvariantSuccessor, InvariantLanes,
	InvariantAdmission, InvariantStop, InvariantRefusal, InvariantExit, InvariantHops, InvariantPossible, InvariantEnd,
}

// The invariants by their names.
const (
	InvariantDeadline  = "some deadline or outstanding effect in every state but Running and Stopped"
	InvariantAlternate = "start and close alternate"
	InvariantLock      = "the lock is held in every state that serves, closes or hands over"
	InvariantRelease   = "the lock is released in Stopped, unless the exit was forced; then the system releases it"
	InvariantSuccessor = "at most one successor"
	InvariantLanes     = "turns start only in Running, and in Draining until the successor is prepared"
	InvariantAdmission = "new turns are accepted only while something serves"
	InvariantStop      = "a stop is never lost"
	InvariantRefusal   = "after a stop nothing is held at the gate"
	InvariantExit      = "the exit code matches the path"
	InvariantHops      = "hops are numbered without gaps, and each begins where the last ended"
	InvariantPossible  = "nothing impossible happens"
	InvariantEnd       = "left alone, every situation ends in Running or Stopped; a restart that nothing answers ends after exactly drain_timeout + shutdown_timeout"
)

// HandoverSteps tells how the mode spawn hands over. What happens when one of the two dies or hangs is what
// the model of both processes and the tests with the real ones find.
func HandoverSteps() []HandoverStep {
	const goesOn = "it goes on as it was: the restart is called off"
	const inPlace = "the old one kills it after `respawn_timeout` at the latest, and starts again in place"
	return []HandoverStep{
		{"old, Draining", "starts the successor with one end of a pair of sockets, and nothing else", "both end; the next start finds everything on disk", goesOn},
		{"new", "reads and checks the configuration, says `prepared`", "the new one ends", goesOn},
		{"old, ShuttingDown", "tells clients, interrupts what still runs, closes the store", "the new one ends", "noticed in the next step"},
		{"old, Respawning", "gives copies of the lock, the listeners and the waiting connections, with what was read from them: `go`", "the new one has all or nothing: it goes on alone, or ends", inPlace},
		{"new, Starting", "opens the store under a new epoch, says `ready`; touches nothing else", "the new one goes on alone", inPlace},
		{"old, Respawning", "says `serve`, in one instant with the hop to Stopped: the point of no return", "the new one goes on alone", inPlace},
		{"new, Running", "accepts, answers what waited, starts turns", "nothing happens: it has no part in it any more", "the gateway has died or hangs, as at any other time"},
		{"old, Stopped", "ends the answers that it still gives and hands each connection over as it becomes idle", "those answers are cut", "as above"},
	}
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

// Modes lists the ways in which a restart hands over, the setting `lifecycle.respawn`.
func Modes() []ModeSpec {
	return []ModeSpec{
		{"auto", "exec where the system has it, else in-process; in-process as process 1, whose signals the kernel drops while an image is replaced"},
		{"exec", "the process replaces its own image: same process id; the listener, the instance lock and the connections that wait for an answer are kept. The executable and the configuration on disk are checked first; when the replacement fails, a restart in place"},
		{"spawn", "a successor with a process id of its own: it starts beside the working gateway and says that it is prepared before anything is torn down; gets the listener, the instance lock and the connections that wait for an answer; opens the store and says that it is ready; and serves once it is told to. Until then it can be killed at no loss, and this process goes on in place. Started from a terminal it ends up in the background. Under a supervisor that does not follow it, and as process 1, exec or in-process instead"},
		{"in-process", "start again inside this process, with the configuration on disk; GATEWAY_NO_RESPAWN=1 chooses it. What every other mode falls back to"},
		{"supervisor", "check as for exec, then end with exit code 75, so that a supervisor starts the next process. Requests that wait get 503; with socket activation no connection is refused"},
	}
}

// Signals lists the signals that become events. SIGQUIT keeps Go's stack dump.
func Signals() []SignalSpec {
	return []SignalSpec{
		{"SIGTERM", Stop, "always"},
		{"SIGINT", Stop, "always"},
		{"SIGHUP", Restart, "when the configuration on disk is valid; otherwise refused with its errors, and the gateway goes on as it was"},
		{"SIGUSR1", Restart, "when authorised: `gateway restart --authorize-signal` or the API grants one restart for 5 s, or `lifecycle.allow_signal_restart` is true; otherwise refused with a warning"},
	}
}

// The process's exit codes. Scripts and unit files rely on them.
const (
	ExitOK         = 0  // stopped cleanly or handed over
	ExitFailed     = 1  // could not start (store damaged, other)
	ExitForced     = 2  // the deadline of a stop or restart passed
	ExitServer     = 3  // the server failed while running
	ExitUsage      = 64 // wrong usage
	ExitSupervisor = 75 // handed back to the supervisor for a fresh start
	ExitConfig     = 78 // will not start until a person acts: configuration, already running, port taken
)

// ExitCodes describes the exit codes in rising order.
func ExitCodes() []struct {
	Code    int
	Meaning string
} {
	return []struct {
		Code    int
		Meaning string
	}{
		{ExitOK, "stopped cleanly or handed over"},
		{ExitFailed, "could not start (store damaged, other)"},
		{ExitForced, "forced: the deadline passed"},
		{ExitServer, "the server failed while running"},
		{ExitUsage, "wrong usage"},
		{ExitSupervisor, "asks its supervisor for a fresh start (mode supervisor)"},
		{ExitConfig, "will not start until a person acts: bad configuration, already running, port taken by somebody else"},
	}
}
