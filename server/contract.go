package server

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"time"

	"gateway/queue"
)

// Backend is one generation of what requests are served from. It is immutable; an in-process restart
// publishes a new one.
type Backend struct {
	Queue        *queue.Queue
	Agents       []string // names, sorted
	DefaultAgent string
	Modes        map[string]queue.Mode // by agent; none means followup
	Tools        map[string]bool       // by agent: whether it can be given tools
	Lanes        []string              // names, sorted
	DefaultLane  string
	MaxInput     int64 // bytes of a turn's input
	// Callers are those who may ask off the control socket. Where there are none everyone may, from this machine.
	Callers []Caller
	// Certificate is shown on every listener but the control socket; nil for no TLS. A connection keeps what it
	// began with.
	Certificate *tls.Certificate
	Limits      Limits
	// Config is the configuration in force for GET /v1/config, as JSON encodes it. It holds no secrets. It is called
	// when somebody asks, so that a start need not wait for it; nil for none.
	Config func() (any, error)
	// Check asks whether the next gateway could take over, and changes nothing. It ends with ctx, and by itself.
	Check func(ctx context.Context) (Successor, error)
	// Identity is the public key that names the gateway, the same after each restart; nil for none.
	Identity func() (ed25519.PublicKey, error)
}

// Limits bounds what clients take; the control socket has none of these. The zero value bounds nothing.
type Limits struct {
	// Connections is how many may be open at once, and PerAddress how many of them one address may have, or one
	// /64 network of IPv6; 0 for any number.
	Connections, PerAddress int
	// Rate is how many requests a second one client may make on average; 0 for any number. Burst is how many at
	// once.
	Rate, Burst int
}

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

// Successor is what the executable on disk, with the configuration on disk, says to the question whether it could take
// over. Version is its own; Reason why it could not. Warnings are of what it could do but badly, such as run an agent
// whose program is missing. Each says what to try.
type Successor struct {
	Ready    bool     `json:"ready"`
	Mode     string   `json:"respawn_mode"`
	Version  string   `json:"version,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Warnings []string `json:"warnings"`
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

// handler is an endpoint behind the gate. Returning an error that wraps queue.ErrClosed before anything
// was written sends the request back to the gate, which holds it and runs the handler again on the next
// Backend (here or in the next process image); the gate has set Idempotency-Key on every POST, so the
// replay finds the same turn. Any other error is written as an OpenAI error document.
type handler func(w http.ResponseWriter, r *http.Request, b *Backend) error
