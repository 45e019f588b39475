package server

import (
	"context"
	"encoding/json"

	"gateway/fsm"
)

// Lifecycle is the machine as the server sees it, and what the daemon knows besides.
type Lifecycle interface {
	// Admission says what happens to new work now, and returns a channel that is closed when that may have
	// changed. It never waits.
	Admission() (fsm.Admission, <-chan struct{})
	// Snapshot is the published state. It never waits.
	Snapshot() fsm.Snapshot
	// Status is the document of `gateway status --json`.
	Status() json.RawMessage
	// Hops returns the recorded hops with a sequence greater than after, and a channel that is closed when
	// there are newer ones.
	Hops(after uint64) ([]fsm.Hop, <-chan struct{})
	// Request asks the machine for an event and returns its decision.
	Request(ctx context.Context, r fsm.Request) (fsm.Decision, error)
	// AuthorizeSignal grants one restart by signal for a few seconds.
	AuthorizeSignal(actor string)
}
