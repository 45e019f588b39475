package daemon

import (
	"context"
	"errors"
	"path/filepath"

	"gateway/internal/statedir"
	"gateway/queue"
)

// storeOpening is a store that is opened beside the rest of a start. It may end after the start that needs it.
type storeOpening struct {
	done chan struct{}
	// Valid once done is closed.
	agents agents
	lanes  lanes
	err    error
}

// takeOverEarly takes the lock over from the gateway before this one, if there was one, and begins to open the store,
// while clients wait for all that a start has to do.
func (d *Daemon) takeOverEarly() {
	h := d.handover.inherited
	if h == nil {
		return
	}
	l, err := d.system.adopt(d.config().StateDir, h.Lock())
	if err != nil {
		d.folder.lockErr = err
		return
	}
	d.folder.lock = l
	d.folder.opening = d.beginOpening(context.Background())
}

// beginOpening opens the store. The lock must be held.
func (d *Daemon) beginOpening(ctx context.Context) *storeOpening {
	o := &storeOpening{done: make(chan struct{})}
	c := d.config()
	go func() {
		defer close(o.done)
		if o.agents, o.err = d.system.agents(c, d.subsystem("agent")); o.err != nil {
			return
		}
		concurrency := make(map[string]int)
		for name, l := range c.Lanes {
			concurrency[name] = l.Concurrency
		}
		o.lanes, o.err = d.system.lanes(ctx, filepath.Join(c.StateDir, statedir.StoreFile), queue.Config{
			Runner: o.agents, Lanes: concurrency, MaxAttempts: c.Turns.MaxAttempts, OnInterrupt: queue.OnInterrupt(c.Turns.OnInterrupt),
			MaxQueued: c.Turns.MaxQueued, MaxQueuedPerSession: c.Turns.MaxQueuedPerSession, MaxOutput: int(c.Turns.MaxOutput),
			MaxInput: int(c.Turns.MaxInput), RetryBackoff: c.Turns.RetryBackoff,
			Retention: c.Turns.Retention, CancelGrace: cancelGrace, CloseReserve: closeReserve, Ended: d.outside.metrics.turnEnded, Log: d.subsystem("queue"),
		})
	}()
	return o
}

// opened waits for the store and makes it the one of this generation. before is that of the generation before, when it
// was in this process.
func (d *Daemon) opened(ctx context.Context) (before lanes, err error) {
	o := d.folder.opening
	select {
	case <-o.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	err = d.tenure.keep(func() {
		d.folder.opening = nil
		if o.err == nil {
			g := *d.current.Load()
			before, g.lanes, g.agents = g.lanes, o.lanes, o.agents
			d.current.Store(&g)
		}
	}, nil)
	return before, errors.Join(err, o.err)
}

// tooLate ends an opening that the gateway has not waited for: it closes the store once it is open, and releases the
// lock then, which is its own from now on. In the real process the end of the process comes first.
func (o *storeOpening) tooLate(l lock) {
	go func() {
		<-o.done
		_ = o.close(context.Background())
		_ = l.Release()
	}()
}

// close closes what was opened, once done is closed. An opening that failed leaves nothing to close.
func (o *storeOpening) close(ctx context.Context) error {
	if o.err != nil {
		return nil //nolint:nilerr // whoever waits for the opening gets it
	}
	return errors.Join(o.lanes.Close(ctx), o.agents.Close(ctx))
}
