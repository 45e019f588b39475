package fsm

// Lifecycle returns the table of the gateway, a fresh copy at each call.
func Lifecycle() Table {
	to := func(from State, ev Event, to State, ef Effect, why string) Cell {
		return Cell{State: from, Event: ev, Kind: Transition, To: to, Effect: ef, Why: why}
	}
	internal := func(s State, ev Event, why string) Cell {
		return Cell{State: s, Event: ev, Kind: Internal, Why: why}
	}
	coalesced := func(s State, ev Event, why string) Cell {
		return Cell{State: s, Event: ev, Kind: Coalesced, Why: why}
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
	when := func(i Intent, c Cell) Cell { c.When = i; return c }
	intend := func(c Cell, i Intent) Cell { c.Intent = i; return c }
	exit := func(c Cell, codes ...ExitCode) Cell { c.Exits = codes; return c }
	hold := func(c Cell) Cell { c.Holds = true; return c }

	return Table{
		Initial: Starting, First: EffectStart, Serves: Running, Final: Stopped,

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
				Name: Draining, Admission: Open, Starts: true,
				Invariant: "serving; turns start until `prepared`; after it those that run may finish",
				Client:    "everything works, and `/readyz` answers 200, until `prepared`; after it new turns are written down and wait, and `/readyz` answers 503",
				Deadlines: []DeadlineSpec{
					{[]Setting{DrainTimeout}, DrainTimedOut},
					{[]Setting{DrainTimeout, ShutdownTimeout}, ForceExit},
				},
			},
			{
				Name: ShuttingDown, Admission: Held, Starts: false,
				Invariant: "open streams and connections are being ended, then the store is closed",
				Client:    "open streams end with a `shutdown` notice; requests wait at the gate (restart) or get 503 with Retry-After (stop)",
				Deadlines: []DeadlineSpec{{[]Setting{ShutdownTimeout}, ForceExit}},
			},
			{
				Name: Respawning, Admission: Held, Starts: false,
				Invariant: "the store is closed; the successor is taking over, or this process is about to start again",
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
			{Resume, ByRequest, "`gateway resume`, the API; the effect drain, when the successor cannot be prepared"},
			{Started, ByOutcome, "the effect start: lock, store and listener are there"},
			{StartFailed, ByOutcome, "the effect start; the deadline of Starting"},
			{ServerFailed, ByOutcome, "the server, when its listener fails while it serves"},
			{Prepared, ByOutcome, "the effect drain, on its way: the successor could take over now"},
			{Drained, ByOutcome, "the effect drain: nothing runs any more and the successor is prepared"},
			{DrainTimedOut, ByDeadline, "the deadline of Draining, or the one that a restart asked for instead, which never comes before `prepared`"},
			{Closed, ByOutcome, "the effect close"},
			{Respawned, ByOutcome, "the effect respawn: the successor has taken over"},
			{HandedBack, ByOutcome, "the effect respawn in mode supervisor: the supervisor is to start the next process"},
			{RespawnDeclined, ByOutcome, "the effect respawn in mode in-process"},
			{RespawnFailed, ByOutcome, "the effect respawn; the deadline of Respawning"},
			{ForceExit, ByDeadline, "the deadline of ShuttingDown, and of a Draining that outlived its own"},
		},

		Effects: []EffectSpec{
			{Name: EffectStart, Does: "take the lock, listen, open the store and recover its lanes", Outcomes: []Event{Started, StartFailed}, Panic: StartFailed},
			{Name: EffectOpen, Does: "publish ready, notify the supervisor, release the lanes", Panic: ServerFailed},
			{Name: EffectDrain, Does: "prepare the successor and report it, then stop the lanes and wait for the turns that run", Reports: []Event{Prepared}, Outcomes: []Event{Drained, Resume}, Panic: Resume},
			{Name: EffectResume, Does: "dismiss the successor, release the lanes again", Panic: ServerFailed},
			{Name: EffectClose, Does: "notify clients, interrupt the turns that still run, end connections politely, close the store", Outcomes: []Event{Closed}, Panic: Closed},
			{Name: EffectRespawn, Does: "hand over to the successor or to the supervisor, or decline in mode in-process", Outcomes: []Event{Respawned, HandedBack, RespawnDeclined, RespawnFailed}, Panic: RespawnFailed},
			{Name: EffectReset, Does: "dismiss the successor, reset the lanes (a new generation), then start again", Outcomes: []Event{Started, StartFailed}, Panic: StartFailed},
			{Name: EffectRelease, Does: "stop the successor unless it has taken over, release the lock"},
			{Name: EffectAbandon, Does: "log \"shutdown timed out; exiting without full cleanup\"; what was accepted is on disk", AtOnce: true},
		},

		Cells: []Cell{
			// Starting
			to(Starting, Started, Running, EffectOpen, "ready"),
			exit(to(Starting, StartFailed, Stopped, EffectRelease, "the start cannot succeed; with the code config when a person must act first"), ExitFailed, ExitConfig),
			intend(to(Starting, Stop, ShuttingDown, EffectClose, "the start is cancelled; what it had opened is closed"), IntentStop),
			postponed(Starting, Restart, "waits for Running, then restarts"),
			ignored(Starting, Resume, "no restart is draining, so there is none to call off"),
			postponed(Starting, ServerFailed, "waits for the start to report"),
			never(Starting, Prepared, "nothing drains"),
			never(Starting, Drained, "nothing drains"),
			never(Starting, DrainTimedOut, "nothing drains"),
			never(Starting, Closed, "nothing closes"),
			never(Starting, Respawned, "nothing respawns"),
			never(Starting, HandedBack, "nothing respawns"),
			never(Starting, RespawnDeclined, "nothing respawns"),
			never(Starting, RespawnFailed, "nothing respawns"),
			never(Starting, ForceExit, "the deadline here is start_failed"),

			// Running
			intend(to(Running, Stop, ShuttingDown, EffectClose, "a stop waits for no turn: those that run are interrupted and kept"), IntentStop),
			intend(to(Running, Restart, Draining, EffectDrain, "turns that run may finish first"), IntentRestart),
			exit(intend(to(Running, ServerFailed, ShuttingDown, EffectClose, "nothing can be served any more"), IntentStop), ExitServer),
			ignored(Running, Resume, "no restart is draining, so there is none to call off"),
			never(Running, Started, "started already"),
			never(Running, StartFailed, "started already"),
			never(Running, Prepared, "nothing drains"),
			never(Running, Drained, "nothing drains"),
			never(Running, DrainTimedOut, "nothing drains"),
			never(Running, Closed, "nothing closes"),
			never(Running, Respawned, "nothing respawns"),
			never(Running, HandedBack, "nothing respawns"),
			never(Running, RespawnDeclined, "nothing respawns"),
			never(Running, RespawnFailed, "nothing respawns"),
			never(Running, ForceExit, "Running has no deadline"),

			// Draining
			hold(internal(Draining, Prepared, "the successor could take over: no further turn starts, and those that run may finish")),
			to(Draining, Drained, ShuttingDown, EffectClose, "nothing runs and the successor is prepared"),
			to(Draining, DrainTimedOut, ShuttingDown, EffectClose, "what still runs is interrupted and goes back to the head of its session"),
			intend(to(Draining, Resume, Running, EffectResume, "the restart is called off; nothing was torn down"), IntentNone),
			intend(to(Draining, Stop, ShuttingDown, EffectClose, "a stop outranks a restart"), IntentStop),
			exit(to(Draining, ForceExit, Stopped, EffectAbandon, "the drain outlived its own deadline"), ExitForced),
			coalesced(Draining, Restart, "a restart is under way already"),
			postponed(Draining, ServerFailed, "a restart repairs it; should the restart be called off, it stops the gateway"),
			never(Draining, Started, "started already"),
			never(Draining, StartFailed, "started already"),
			never(Draining, Closed, "nothing closes yet"),
			never(Draining, Respawned, "nothing respawns yet"),
			never(Draining, HandedBack, "nothing respawns yet"),
			never(Draining, RespawnDeclined, "nothing respawns yet"),
			never(Draining, RespawnFailed, "nothing respawns yet"),

			// ShuttingDown
			when(IntentRestart, to(ShuttingDown, Closed, Respawning, EffectRespawn, "closed with the intent to restart")),
			when(IntentStop, to(ShuttingDown, Closed, Stopped, EffectRelease, "closed with the intent to stop")),
			when(IntentRestart, intend(internal(ShuttingDown, Stop, "the restart becomes a stop"), IntentStop)),
			when(IntentStop, coalesced(ShuttingDown, Stop, "a stop is under way already")),
			when(IntentRestart, coalesced(ShuttingDown, Restart, "a restart is under way already")),
			when(IntentStop, ignored(ShuttingDown, Restart, "a stop outranks a restart")),
			exit(to(ShuttingDown, ForceExit, Stopped, EffectAbandon, "the close outlived its deadline: the process ends without full cleanup"), ExitForced),
			ignored(ShuttingDown, Resume, "too late: streams have been ended"),
			ignored(ShuttingDown, ServerFailed, "the server is being closed"),
			never(ShuttingDown, Started, "a start that was cancelled reports late and is dropped"),
			never(ShuttingDown, StartFailed, "a start that was cancelled reports late and is dropped"),
			never(ShuttingDown, Prepared, "the drain is over"),
			never(ShuttingDown, Drained, "the drain is over"),
			never(ShuttingDown, DrainTimedOut, "the drain is over"),
			never(ShuttingDown, Respawned, "nothing respawns yet"),
			never(ShuttingDown, HandedBack, "nothing respawns yet"),
			never(ShuttingDown, RespawnDeclined, "nothing respawns yet"),
			never(ShuttingDown, RespawnFailed, "nothing respawns yet"),

			// Respawning
			to(Respawning, Respawned, Stopped, EffectRelease, "the successor serves, and held requests are with it"),
			exit(to(Respawning, HandedBack, Stopped, EffectRelease, "left to the supervisor, which starts the next process"), ExitSupervisor),
			intend(to(Respawning, RespawnDeclined, Starting, EffectReset, "restart in place, in this process"), IntentNone),
			intend(to(Respawning, RespawnFailed, Starting, EffectReset, "restart in place, and the reason is logged as a warning"), IntentNone),
			intend(to(Respawning, Stop, Stopped, EffectRelease, "all is closed already; a successor is stopped too"), IntentStop),
			coalesced(Respawning, Restart, "a restart is under way already"),
			ignored(Respawning, Resume, "too late: all is closed"),
			ignored(Respawning, ServerFailed, "the next start opens what is missing"),
			never(Respawning, Started, "this process starts nothing now"),
			never(Respawning, StartFailed, "this process starts nothing now"),
			never(Respawning, Prepared, "the drain is over"),
			never(Respawning, Drained, "the drain is over"),
			never(Respawning, DrainTimedOut, "the drain is over"),
			never(Respawning, Closed, "closed already"),
			never(Respawning, ForceExit, "the deadline here is respawn_failed"),

			// Stopped
			ignored(Stopped, Stop, "the process ends"),
			ignored(Stopped, Restart, "the process ends"),
			ignored(Stopped, Resume, "the process ends"),
			ignored(Stopped, ServerFailed, "the process ends"),
			never(Stopped, Started, "nothing is under way"),
			never(Stopped, StartFailed, "nothing is under way"),
			never(Stopped, Prepared, "nothing is under way"),
			never(Stopped, Drained, "nothing is under way"),
			never(Stopped, DrainTimedOut, "nothing is under way"),
			never(Stopped, Closed, "nothing is under way"),
			never(Stopped, Respawned, "nothing is under way"),
			never(Stopped, HandedBack, "nothing is under way"),
			never(Stopped, RespawnDeclined, "nothing is under way"),
			never(Stopped, RespawnFailed, "nothing is under way"),
			never(Stopped, ForceExit, "nothing is under way"),
		},
	}
}
