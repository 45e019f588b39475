package server

import (
	"context"
	"encoding/json"
	"time"

	"gateway/server/api"
)

// Lifecycle is the machine as the server sees it; internal/daemon adapts it.
type Lifecycle interface {
	// Admission says what happens to new work now, and returns a channel that is closed when that may have
	// changed. It never waits.
	Admission() (Admission, <-chan struct{})
	// Status is the published snapshot: the fields of `gateway status --json` except turns.
	Status() Status
	// Hops returns the recorded hops with a sequence greater than after, and a channel that is closed when
	// there are newer ones.
	Hops(after uint64) ([]Hop, <-chan struct{})
	// Request asks the machine for an event ("restart", "stop", "resume") and returns its decision.
	Request(ctx context.Context, r Request) (Decision, error)
	// AuthorizeSignal grants one restart by signal for a few seconds.
	AuthorizeSignal(actor string)
	// States renders the transition table: "json", "mermaid", "dot", "markdown".
	States(format string) (string, error)
}

// Admission is what the lifecycle lets happen to a request that needs a Backend.
type Admission string

// Open: served. Held: waits at the gate. Refused: 503 with Retry-After.
const (
	AdmissionOpen    Admission = "open"
	AdmissionHeld    Admission = "held"
	AdmissionRefused Admission = "refused"
)

// Request asks for an event. Turn is the id of the turn that asks from inside, empty otherwise. Drain is how
// long a restart may wait for the turns that run; nil for what is configured.
type Request struct {
	Event, Actor, Reason, Turn string
	Drain                      *time.Duration
}

// Decision is the machine's answer to a request.
type Decision struct {
	// Outcome is accepted, coalesced (the same is under way already), postponed or ignored.
	Outcome string `json:"outcome"`
	State   string `json:"state"`
	Message string `json:"message"`
	// Hop is the sequence of the newest hop once the decision was carried out.
	Hop uint64 `json:"hop"`
}

// Status and Hop are documents of the machine, passed through as they are.
type (
	Status struct {
		State      string
		BootID     string
		Generation int
		Document   json.RawMessage
	}
	Hop struct {
		Seq      uint64
		Document json.RawMessage
	}
)

// What the daemon hands in is declared where every endpoint sees it.
type (
	Backend   = api.Backend
	Caller    = api.Caller
	Limits    = api.Limits
	Notice    = api.Notice
	Scope     = api.Scope
	Successor = api.Successor
)

// Admin is the scope that contains all.
const Admin = api.Admin

// NewCaller is [api.NewCaller].
func NewCaller(name, token string, scope Scope) Caller { return api.NewCaller(name, token, scope) }

// ScopeOf is [api.ScopeOf].
func ScopeOf(names ...string) Scope { return api.ScopeOf(names...) }
