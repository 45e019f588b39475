// Package queue keeps turns: it writes each one to disk before it says yes, runs it in its lane, and
// keeps its answer.
//
// The invariant: a turn that Accept returned is on disk, ends exactly once, and no later turn of its
// session starts before it ended. That holds across stop, restart, crash and power loss.
//
// What can happen to a turn, and what becomes of it then, is one table, in lifecycle.go. docs/turns.md is generated from
// it.
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Status is where a turn is on its way. The zero value is not a status.
type Status string

// The statuses of a turn. Completed, Failed and Cancelled are final; a failed or cancelled turn leaves
// them only by [Queue.Retry].
const (
	Queued    Status = "queued"
	Running   Status = "running"
	Completed Status = "completed"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
)

// Final reports whether no further event of the turn will come by itself.
func (s Status) Final() bool { return s == Completed || s == Failed || s == Cancelled }

// OnInterrupt says what becomes of a turn whose attempt was cut short by a stop, a drain's deadline or a
// crash. The zero value means the queue's default.
type OnInterrupt string

// RetryTurn puts an interrupted turn back at the head of its session; FailTurn ends it with the reason.
const (
	RetryTurn OnInterrupt = "retry"
	FailTurn  OnInterrupt = "fail"
)

// Mode says what a new turn does when others of its session wait or run. The words are those of OpenClaw's
// queue modes. The zero value means the default of whoever is asked next: the session, then the agent, then
// [Followup].
type Mode string

const (
	// Followup waits in line.
	Followup Mode = "followup"
	// Collect joins the turn that waits last in the session when that is of the same kind (mode, agent, lane
	// and context) and has never started: the agent gets all that gathered while it was busy as one input.
	// Otherwise it waits in line.
	Collect Mode = "collect"
	// Interrupt cancels what runs and waits in the session before it, and runs next.
	Interrupt Mode = "interrupt"
)

// Valid reports whether the mode is one of the three, or empty.
func (m Mode) Valid() bool { return m == "" || m == Followup || m == Collect || m == Interrupt }

// Turn is one message for an agent and what became of it. A Turn is a value: it never changes after it
// was handed out.
type Turn struct {
	// ID is unique and sorts by acceptance within one process; it is not a secret.
	ID      string `json:"id"`
	Session string `json:"session"`
	Lane    string `json:"lane"`
	Agent   string `json:"agent"`
	Status  Status `json:"status"`
	// Attempt counts the starts that were written down, up to the limit: 0 before the first one. An attempt
	// that the gateway itself interrupted is given back, and [Queue.Retry] begins at 0 again.
	Attempt int `json:"attempt"`
	// Runs counts every start that was written down, whatever became of it. It never goes back.
	Runs  int    `json:"runs"`
	Input string `json:"input"`
	// Output is the whole text of the attempt that completed; while a turn runs it is empty.
	Output string `json:"output"`
	// Error says why the turn failed or was cancelled; empty otherwise.
	Error string `json:"error"`
	// IdempotencyKey is the client's, or one that the gateway made.
	IdempotencyKey string     `json:"idempotency_key"`
	CreatedAt      time.Time  `json:"created_at"`
	StartedAt      *time.Time `json:"started_at"`  // of the latest attempt; nil before the first
	FinishedAt     *time.Time `json:"finished_at"` // nil until the status is final
	// LastEvent is the sequence of the newest event; 0 when there is none.
	LastEvent int64 `json:"last_event"`
	// OnInterrupt is what an interruption does; never empty on a turn that was accepted.
	OnInterrupt OnInterrupt `json:"on_interrupt"`
	// Mode is what the turn was accepted with; never empty on a turn that was accepted.
	Mode Mode `json:"mode"`
	// NotBefore is when a turn that waits for its next attempt may start; nil when it may at once.
	NotBefore *time.Time `json:"not_before,omitempty"`
	// Context is what else the client sent and the agent may want (earlier messages, instructions,
	// sampling parameters), as JSON; nil when there is nothing.
	Context json.RawMessage `json:"-"`
	// Detail is what the runner said about the output with [Work.Describe], as JSON; nil unless completed.
	Detail json.RawMessage `json:"-"`
}

// NewTurn is what a client asks for. Session, Lane, Agent and Input are required and have been checked
// against the configuration by the caller.
type NewTurn struct {
	Session, Lane, Agent, Input string
	// Context is kept with the turn, see [Turn.Context].
	Context json.RawMessage
	// IdempotencyKey makes a repeat of the same request in the same session return the first turn. Empty:
	// one is made.
	IdempotencyKey string
	// OnInterrupt overrides the queue's default; empty keeps it.
	OnInterrupt OnInterrupt
	// Mode is what this request asks for. Empty: what was set for the session, else DefaultMode (the
	// agent's), else [Followup].
	Mode, DefaultMode Mode
}

// EventType names what happened to a turn.
type EventType string

// The events of a turn in the order they can come: EventCollected (each input that joined it before its
// first start), EventStarted (one an attempt), any number of
// EventDelta, then EventInterrupted (the attempt was cut short: the text so far is void and the turn
// waits again) or one of the final three. EventRequeued follows a final event when [Queue.Retry] brought
// the turn back.
const (
	EventCollected   EventType = "collected"
	EventStarted     EventType = "started"
	EventDelta       EventType = "delta"
	EventInterrupted EventType = "interrupted"
	EventCompleted   EventType = "completed"
	EventFailed      EventType = "failed"
	EventCancelled   EventType = "cancelled"
	EventRequeued    EventType = "requeued"
)

// Final reports whether the event ends the turn.
func (t EventType) Final() bool {
	return t == EventCompleted || t == EventFailed || t == EventCancelled
}

// Event is one entry of a turn's log. It is on disk before any subscriber sees it.
type Event struct {
	Turn string `json:"turn"`
	// Seq counts from 1 within the turn, without gaps, across attempts and restarts.
	Seq     int64     `json:"seq"`
	Type    EventType `json:"type"`
	Attempt int       `json:"attempt"`
	// Text is what a delta adds to the output; for collected the input that joined; for interrupted, failed
	// and cancelled the reason.
	Text string    `json:"text,omitempty"`
	At   time.Time `json:"at"`
	// Detail is the turn's, on the event that completes it.
	Detail json.RawMessage `json:"detail,omitempty"`
}

// Work is one attempt handed to a [Runner].
type Work struct {
	Turn Turn
	// History returns the completed turns of the session before this one, oldest first, at most limit of
	// the newest.
	History func(ctx context.Context, limit int) ([]Turn, error)
	// Emit adds text to the output. It may wait for the disk when the agent is faster; it returns an error
	// when the attempt is over or the output has grown beyond the limit, and the runner must then return.
	Emit func(text string) error
	// Describe keeps a JSON document about the output with the turn (how many tokens it took, say) when it is
	// completed. A later call replaces it; it counts with the output against the limit.
	Describe func(detail json.RawMessage) error
}

// Runner runs attempts. Run returns when the agent has ended: nil makes the turn completed with all that
// was emitted as its output, an error makes it failed, one made by [Temporary] only after the last attempt. When ctx ends, [context.Cause] is [ErrInterrupted]
// or [ErrCancelled] and Run must return soon; one that does not is abandoned.
type Runner interface {
	Run(ctx context.Context, w Work) error
}

// Errors that callers tell apart with [errors.Is]. The text of each is meant for people.
var (
	// ErrClosed: this queue was closed (the gateway stops or restarts). What was accepted is safe; the
	// next queue on the same store goes on with it.
	ErrClosed = errors.New("queue: closed")
	// ErrNotFound: no such turn (or it was pruned after the retention window).
	ErrNotFound = errors.New("queue: no such turn")
	// ErrNoRoom: the disk is full; nothing was written. Reading goes on, and so does writing once there is room.
	ErrNoRoom = errors.New("queue: the disk has no room")
	// ErrUnusable: the disk refuses for a reason that is not lack of room, such as a file system that has become
	// read-only; nothing was written. It goes on once the disk works again.
	ErrUnusable = errors.New("queue: the store cannot be read or written")
	// ErrDamaged: the file of the store is damaged where this is kept. What does not need it goes on.
	ErrDamaged = errors.New("queue: the store is damaged")
	// ErrFull: a limit on waiting turns was reached; nothing was written.
	ErrFull = errors.New("queue: full")
	// ErrKeyReused: the idempotency key was used in this session for another input or agent.
	ErrKeyReused = errors.New("queue: idempotency key used before for something else")
	// ErrConflict: the turn's status does not allow what was asked.
	ErrConflict = errors.New("queue: not possible in this status")
	// ErrInterrupted and ErrCancelled are the causes of an attempt's context.
	ErrInterrupted = errors.New("queue: interrupted by the gateway")
	ErrCancelled   = errors.New("queue: cancelled on request")
	// ErrSuperseded wraps ErrCancelled: a newer turn of the session with mode [Interrupt] took its place.
	ErrSuperseded = fmt.Errorf("%w: superseded by a newer message", ErrCancelled)
)
