// Package api is what every endpoint of the gateway is made of, whichever protocol it speaks: the generation that it
// serves from, who asks, how a request is read, and how it is answered, streamed or refused.
//
// The invariant: what a client sends and nobody understands is refused by its name and never ignored, and every
// refusal is an [Error], which ends in what to try.
package api

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"net/http"

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

// Handler is an endpoint behind the gate. Returning an error that wraps queue.ErrClosed before anything
// was written sends the request back to the gate, which holds it and runs the handler again on the next
// Backend (here or in the next process image); the gate has set Idempotency-Key on every POST, so the
// replay finds the same turn. Any other error is written as an OpenAI error document.
type Handler func(w http.ResponseWriter, r *http.Request, b *Backend) error

// BodyLimit is the largest body of a request, in bytes; nil has a limit too.
func (b *Backend) BodyLimit() int64 {
	if b == nil {
		return defaultBodyLimit
	}
	return MaxSmallBody + bodyPerInput*b.MaxInput
}
