// Package fsm is the lifecycle of the gateway: one table of states, events and transitions, and the
// machine that runs it.
//
// The invariant: a state's name is true whenever it can be read, and nothing moves the machine but a row
// of the table in table.go. The daemon runs it, docs/states.md is generated from it, the command line
// and the API show it, and the tests walk it.
package fsm

// State names where the lifecycle is. Written exactly so in code, logs, the API and documents.
type State string

// The six states. Their invariants stand in the table below.
const (
	Starting     State = "Starting"
	Running      State = "Running"
	Draining     State = "Draining"
	ShuttingDown State = "ShuttingDown"
	Respawning   State = "Respawning"
	Stopped      State = "Stopped"
)

// Event names what moves the machine: a request, the outcome of an effect, or a deadline.
type Event string

// The events. Who raises each stands in the table below.
const (
	Stop             Event = "stop"
	Restart          Event = "restart"
	Resume           Event = "resume"
	Started          Event = "started"
	StartFailed      Event = "start_failed"
	ServerFailed     Event = "server_failed"
	Drained          Event = "drained"
	DrainTimedOut    Event = "drain_timed_out"
	Closed           Event = "closed"
	ClosedForRestart Event = "closed_for_restart"
	Respawned        Event = "respawned"
	RespawnDeclined  Event = "respawn_declined"
	RespawnFailed    Event = "respawn_failed"
	ForceExit        Event = "force_exit"
)

// Effect names the work that a transition sets off. The machine runs it in a goroutine of its own, under
// the context of the state that began it.
type Effect string

// The effects. What each does and how it can end stands in the table below.
const (
	EffectStart   Effect = "start"
	EffectOpen    Effect = "open"
	EffectDrain   Effect = "drain"
	EffectResume  Effect = "resume"
	EffectClose   Effect = "close"
	EffectRespawn Effect = "respawn"
	EffectReset   Effect = "reset"
	EffectRelease Effect = "release"
	EffectAbandon Effect = "abandon"
)

// Kind says what a cell of the (state, event) matrix does.
type Kind string

// The kinds of a cell. No cell of the matrix is blank.
const (
	// Transition moves the machine to another state.
	Transition Kind = "transition"
	// Internal changes what the machine intends but not its state.
	Internal Kind = "internal"
	// Ignored changes nothing; it is logged and whoever asked is told why.
	Ignored Kind = "ignored"
	// Postponed keeps the event until a state is entered whose cell decides otherwise.
	Postponed Kind = "postponed"
	// Impossible cannot arrive while the code is right: logged as an error and counted, never a crash.
	Impossible Kind = "impossible"
)

// Intent is what the machine is on its way to do. The zero value is nothing: it serves or starts.
type Intent string

// IntentStop ends in Stopped; IntentRestart ends in a successor or in Starting.
const (
	IntentNone    Intent = "none" // in a cell: forget what was intended
	IntentStop    Intent = "stop"
	IntentRestart Intent = "restart"
)

// HandoverStep is one step of a hand-over between two processes: who does it, what it is, and what happens when
// the old or the new one dies or hangs there.
type HandoverStep struct{ Who, Does, OldDies, NewDies string }

// Setting names the configuration key of a duration, below `lifecycle`.
type Setting string

// The durations that the table refers to.
const (
	StartTimeout    Setting = "start_timeout"
	DrainTimeout    Setting = "drain_timeout"
	ShutdownTimeout Setting = "shutdown_timeout"
	RespawnTimeout  Setting = "respawn_timeout"
)

// Class says where an event comes from.
type Class string

// A request comes from a person, a client or a signal; an outcome from an effect; a deadline from a timer
// (some outcomes are raised by a deadline as well).
const (
	ByRequest  Class = "request"
	ByOutcome  Class = "outcome"
	ByDeadline Class = "deadline"
)

// Admission says what happens to a new turn.
type Admission string

// Open: written down and acknowledged. Held: the request waits at the gate. Refused: answered with 503
// and Retry-After.
const (
	Open    Admission = "open"
	Held    Admission = "held"
	Refused Admission = "refused"
)

// StateSpec is a row of the list of states.
type StateSpec struct {
	Name State `json:"state"`
	// Invariant is true whenever the state can be read.
	Invariant string `json:"invariant"`
	// Admission is for an intent other than stop; with the intent to stop, what is held is refused.
	Admission Admission `json:"admission"`
	// Starts reports whether accepted turns are started for as long as the state lasts.
	Starts bool `json:"starts"`
	// Client is what a client sees.
	Client string `json:"client"`
	// Deadlines end the state by themselves; none in Running and Stopped.
	Deadlines []DeadlineSpec `json:"deadlines"`
}

// DeadlineSpec raises Event once the sum of the settings has passed since the state was entered.
type DeadlineSpec struct {
	After []Setting `json:"after"`
	Event Event     `json:"event"`
}

// EventSpec is a row of the list of events.
type EventSpec struct {
	Name   Event  `json:"event"`
	Class  Class  `json:"class"`
	Raised string `json:"raised"` // by whom
}

// EffectSpec is a row of the list of effects.
type EffectSpec struct {
	Name Effect `json:"effect"`
	Does string `json:"does"`
	// Outcomes are the events of which the effect posts exactly one; none when it posts nothing.
	Outcomes []Event `json:"outcomes"`
	// Panic is the outcome when the effect panics.
	Panic Event `json:"panic,omitempty"`
	// AtOnce effects do not wait for the effect before them to return.
	AtOnce bool `json:"at_once,omitempty"`
}

// Cell is the decision for one event in one state.
type Cell struct {
	State State `json:"state"`
	Event Event `json:"event"`
	Kind  Kind  `json:"kind"`
	// To is the state entered; empty unless Kind is Transition.
	To State `json:"to"`
	// Effect is the work set off; empty for none.
	Effect Effect `json:"effect"`
	// Intent is what the machine intends from here on; empty leaves it as it was.
	Intent Intent `json:"intent,omitempty"`
	// Exit is the process's exit code to remember; 0 leaves it as it was.
	Exit int    `json:"exit,omitempty"`
	Why  string `json:"why"`
}

// Table is a whole lifecycle. [Lifecycle] returns the one that the gateway runs.
type Table struct {
	Initial State        `json:"initial"`
	First   Effect       `json:"first_effect"` // set off by entering Initial at the start of the process
	Final   State        `json:"final"`
	States  []StateSpec  `json:"states"`
	Events  []EventSpec  `json:"events"`
	Effects []EffectSpec `json:"effects"`
	Cells   []Cell       `json:"cells"`
}

// ModeSpec is a way in which a restart hands over.
type ModeSpec struct {
	Name string `json:"mode"`
	Does string `json:"does"`
}

// SignalSpec says what a signal does. internal/daemon listens to exactly these.
type SignalSpec struct {
	Name  string `json:"signal"`
	Event Event  `json:"event"`
	// Rule says on what condition the signal becomes the event.
	Rule string `json:"rule"`
}
