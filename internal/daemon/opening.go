package daemon

import (
	"context"
	"path/filepath"

	"gateway/internal/agent"
	"gateway/internal/statedir"
	"gateway/queue"
)

// storeOpening is a store that is opened beside the rest of a start.
type storeOpening struct {
	done chan struct{}
	// Valid once done is closed.
	agents *agent.Set
	queue  *queue.Queue
	err    error
}

// inherit takes the lock over from the gateway before this one, if there was one, and begins to open the store, while
// clients wait for all that a start has to do.
func (d *daemon) inherit() {
	if d.inherited == nil {
		return
	}
	if d.lock, d.lockErr = statedir.Adopt(d.config().StateDir, d.inherited.LockFile()); d.lockErr == nil {
		d.opening = d.beginOpening(context.Background())
	}
}

// beginOpening opens the store. The lock must be held.
func (d *daemon) beginOpening(ctx context.Context) *storeOpening {
	o := &storeOpening{done: make(chan struct{})}
	c := d.config()
	go func() {
		defer close(o.done)
		if o.agents, o.err = agent.New(c.Agents, c.StateDir, d.subsystem("agent")); o.err != nil {
			return
		}
		lanes := make(map[string]int)
		for name, l := range c.Lanes {
			lanes[name] = l.Concurrency
		}
		o.queue, o.err = queue.Open(ctx, filepath.Join(c.StateDir, statedir.StoreFile), queue.Config{
			Runner: o.agents, Lanes: lanes, MaxAttempts: c.Turns.MaxAttempts, OnInterrupt: queue.OnInterrupt(c.Turns.OnInterrupt),
			MaxQueued: c.Turns.MaxQueued, MaxQueuedPerSession: c.Turns.MaxQueuedPerSession, MaxOutput: int(c.Turns.MaxOutput),
			MaxInput: int(c.Turns.MaxInput), RetryBackoff: c.Turns.RetryBackoff,
			Retention: c.Turns.Retention, CancelGrace: cancelGrace, Ended: func(t queue.Turn) { d.metrics.turnEnded(t) }, Log: d.subsystem("queue"),
		})
	}()
	return o
}

// opened waits for the store and makes it the one of this generation. before is that of the generation before, when it
// was in this process.
func (d *daemon) opened(ctx context.Context) (before *queue.Queue, err error) {
	o := d.opening
	select {
	case <-o.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	d.opening = nil
	if o.err != nil {
		return nil, o.err
	}
	d.agents = o.agents
	return d.queue.Swap(o.queue), nil
}
