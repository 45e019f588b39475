// Package fsm is the lifecycle of the gateway: one table of states, events and transitions, and the
// machine that runs it.
//
// The invariant: a state's name is true whenever it can be read, and nothing moves the machine but a row
// of the table in table.go. The daemon runs it, docs/states.md is generated from it, the command line
// and the API show it, and the tests walk it.
package fsm

import "time"

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
	Stop            Event = "stop"
	Restart         Event = "restart"
	Resume          Event = "resume"
	Started         Event = "started"
	StartFailed     Event = "start_failed"
	ServerFailed    Event = "server_failed"
	Prepared        Event = "prepared"
	Drained         Event = "drained"
	DrainTimedOut   Event = "drain_timed_out"
	Closed          Event = "closed"
	Respawned       Event = "respawned"
	HandedBack      Event = "handed_back"
	RespawnDeclined Event = "respawn_declined"
	RespawnFailed   Event = "respawn_failed"
	ForceExit       Event = "force_exit"
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
	// Internal changes what the machine intends, or whether turns start, but not its state.
	Internal Kind = "internal"
	// Coalesced changes nothing: what is asked for is under way already. A restart may move the deadline of the
	// drain that it joins; see [Request].
	Coalesced Kind = "coalesced"
	// Ignored changes nothing; it is logged, and whoever asked gets the reason.
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
	IntentNone    Intent = "none" // in a cell only: no intent
	IntentStop    Intent = "stop"
	IntentRestart Intent = "restart"
)

// Setting names the configuration key of a duration, below `lifecycle`.
type Setting string

// The durations that the table refers to.
const (
	StartTimeout    Setting = "start_timeout"
	DrainTimeout    Setting = "drain_timeout"
	ShutdownTimeout Setting = "shutdown_timeout"
	RespawnTimeout  Setting = "respawn_timeout"
)

// Timeouts gives the duration of each setting. A missing or zero one ends at once.
type Timeouts map[Setting]time.Duration

// Defaults are the durations of a configuration that does not set them.
func Defaults() Timeouts {
	return Timeouts{
		StartTimeout: 30 * time.Second, DrainTimeout: 30 * time.Second,
		ShutdownTimeout: 5 * time.Second, RespawnTimeout: 10 * time.Second,
	}
}

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
	// Starts reports whether accepted turns are started when the state is entered. A cell may hold them later; see
	// [Cell.Holds].
	Starts bool `json:"starts"`
	// Client is what a client sees.
	Client string `json:"client"`
	// Deadlines end the state by themselves, the first before the others. The state that serves and the final one
	// have none.
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
	// Reports are the events that the effect posts on its way, in this order, before any outcome but Panic.
	Reports []Event `json:"reports,omitempty"`
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
	// When is the intent with which the row counts; empty for any.
	When Intent `json:"when,omitempty"`
	Kind Kind   `json:"kind"`
	// To is the state entered; empty unless Kind is Transition.
	To State `json:"to"`
	// Effect is the work set off; empty for none.
	Effect Effect `json:"effect"`
	// Intent is what the machine intends from here on; empty leaves it as it was.
	Intent Intent `json:"intent,omitempty"`
	// Holds: from here on no turn is started, until a state is entered that starts turns.
	Holds bool `json:"holds,omitempty"`
	// Exits are the process's exit codes that the event may ask for. The first is remembered unless the outcome
	// chooses another of them. None leaves the code as it was.
	Exits []ExitCode `json:"exits,omitempty"`
	Why   string     `json:"why"`
}

// Label tells the rows of one cell apart, in the guard notation of UML.
func (c Cell) Label() string {
	if c.When == "" {
		return string(c.Event)
	}
	return string(c.Event) + " [" + string(c.When) + "]"
}

// counts reports whether the row is the one that counts while the machine intends i.
func (c Cell) counts(i Intent) bool {
	return c.When == "" || c.When == i || (c.When == IntentNone && i == "")
}

// then is what the machine intends after the row, when it intended i before.
func (c Cell) then(i Intent) Intent {
	switch c.Intent {
	case "":
		return i
	case IntentNone:
		return ""
	default:
		return c.Intent
	}
}

// Table is a whole lifecycle. [Lifecycle] returns the one that the gateway runs.
type Table struct {
	Initial State  `json:"initial"`
	First   Effect `json:"first_effect"` // set off by entering Initial at the start of the process
	// Serves is the state that lasts: it has no deadline.
	Serves  State        `json:"serves"`
	Final   State        `json:"final"`
	States  []StateSpec  `json:"states"`
	Events  []EventSpec  `json:"events"`
	Effects []EffectSpec `json:"effects"`
	Cells   []Cell       `json:"cells"`
}

// row finds the row that counts for an event in a state while the machine intends i.
func (t Table) row(s State, e Event, i Intent) (Cell, bool) {
	for _, c := range t.Cells {
		if c.State == s && c.Event == e && c.counts(i) {
			return c, true
		}
	}
	return Cell{}, false
}
