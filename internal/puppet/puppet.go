// Package puppet is an agent that tests move by hand.
package puppet

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/queue"
)

// Agent answers as its input says: "fail" fails, "call" calls a tool, "block" says "begun " and waits to be released, "talk"
// says what it is told to say, until that ends, everything else comes back word by word.
type Agent struct {
	Release chan struct{}   // closed to end "block"
	Say     chan string     // closed to end "talk"
	seen    chan queue.Turn // the turns that began, if anybody looks
}

// Run implements [queue.Runner].
func (a *Agent) Run(ctx context.Context, w queue.Work) error {
	select {
	case a.seen <- w.Turn:
	default:
	}
	switch w.Turn.Input {
	case "call":
		return w.Describe(json.RawMessage(`{"finish_reason":"tool_calls",
			"tool_calls":[{"id":"c1","type":"function","function":{"name":"add","arguments":"{\"a\":1}"}}],
			"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":2}}}`))
	case "fail":
		return errors.New("exit status 1")
	case "block":
		if err := w.Emit("begun "); err != nil {
			return err
		}
		select {
		case <-a.Release:
			return w.Emit("and done")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for w.Turn.Input == "talk" {
		select {
		case word, more := <-a.Say:
			if !more {
				return nil
			}
			if err := w.Emit(word); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for word := range strings.SplitAfterSeq(w.Turn.Input, " ") {
		if err := w.Emit(word); err != nil {
			return err
		}
	}
	return nil
}

// Began waits for the agent to have a turn.
func (a *Agent) Began(t *testing.T) queue.Turn {
	t.Helper()
	select {
	case t := <-a.seen:
		return t
	case <-time.After(time.Minute):
		require.Fail(t, "no turn began")
		return queue.Turn{}
	}
}

// New returns an agent that nobody has moved yet.
func New() *Agent {
	return &Agent{Release: make(chan struct{}), Say: make(chan string), seen: make(chan queue.Turn, 16)}
}

// OpenQueue opens the store at a path, of two lanes, main and cron, whose turns the agent runs. Its turns wait until it is
// resumed.
func OpenQueue(t *testing.T, store string, a *Agent) *queue.Queue {
	t.Helper()
	q, err := queue.Open(t.Context(), store, queue.Config{
		Runner: a, Lanes: map[string]int{"main": 4, "cron": 1}, MaxAttempts: 3, OnInterrupt: queue.RetryTurn,
		MaxQueued: 100, MaxQueuedPerSession: 3, MaxOutput: 1 << 20, Retention: time.Hour, CancelGrace: time.Second, RetryBackoff: time.Millisecond, MaxInput: 1 << 20,
		Log: zerolog.Nop(),
	})
	require.NoError(t, err)
	return q
}
