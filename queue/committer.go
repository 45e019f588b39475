package queue

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"
)

// maxBatch bounds how long one transaction, and so everybody's answer, can take.
const maxBatch = 1000

// committer is the only writer of the store. It takes all operations that wait, commits them as one
// transaction, and tells the scheduler the results in commit order. What may not be lost (starts, events
// and ends of attempts) it tries again, with back-off, until it is written or the queue gives up.
type committer struct {
	store Store
	tell  func([]operation)
	log   zerolog.Logger

	inbox   *mailbox[operation]
	rest    chan struct{} // capacity 1: the log is to be folded between two commits
	hurried atomic.Bool
	done    chan struct{}

	// Owned by run.
	kept    []operation // failed and to be tried again
	backoff *backoff.ExponentialBackOff
	again   *time.Timer
}

func newCommitter(store Store, log zerolog.Logger, tell func([]operation)) *committer {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 20 * time.Millisecond
	b.MaxInterval = time.Second
	again := time.NewTimer(time.Hour)
	again.Stop()
	return &committer{
		store: store, tell: tell, log: log,
		inbox: newMailbox[operation](), rest: make(chan struct{}, 1), done: make(chan struct{}),
		backoff: b, again: again,
	}
}

// submit hands operations over; false when the committer takes no more.
func (c *committer) submit(ops ...operation) bool { return c.inbox.put(ops...) }

// close lets the committer write what it has, and end.
func (c *committer) close() { c.inbox.close() }

// giveUp answers what failed with its error from now on, so that a queue on a broken disk can be closed.
func (c *committer) giveUp() {
	c.hurried.Store(true)
	c.inbox.ring()
}

// foldRest asks for the rest of the log to be folded before the next commit.
func (c *committer) foldRest() {
	select {
	case c.rest <- struct{}{}:
	default:
	}
}

func (c *committer) run() {
	defer close(c.done)
	defer c.again.Stop()
	var buf []operation
	for {
		select {
		case <-c.inbox.wake:
		case <-c.again.C:
			c.retry()
			continue
		case <-c.rest:
			if err := c.store.foldRest(); err != nil {
				c.log.Warn().Err(err).Msg("the end of the store's log stays until the next start")
			}
			continue
		}
		batch, open := c.inbox.take(buf[:0], maxBatch)
		if !open && len(c.kept) == 0 {
			return
		}
		c.write(batch)
		clear(batch)
		buf = batch
		if c.hurried.Load() {
			c.retry()
		}
	}
}

// retry writes again what failed, apart from newer operations: neither can hold up the other.
func (c *committer) retry() {
	kept := c.kept
	if len(kept) == 0 {
		return
	}
	c.kept = nil
	c.write(kept)
	if len(c.kept) == 0 {
		c.backoff.Reset()
		c.log.Info().Int("operations", len(kept)).Msg("writes to the store succeed again")
	}
	c.inbox.ring()
}

// write commits the batch and tells what became of it.
func (c *committer) write(batch []operation) {
	ready := make([]operation, 0, len(batch))
	for _, op := range batch {
		if t, ok := op.(*appendText); ok && !t.attempt.take(t) {
			continue
		}
		ready = append(ready, op)
	}
	for len(ready) > 0 {
		err := c.store.commit(ready)
		var rejected *rejectedError
		switch {
		case err == nil:
			c.tell(ready)
			return
		case errors.As(err, &rejected):
			// Each round takes one operation out, so that a poisonous one costs only itself.
			rejected.op.status().err = rejected
			c.tell([]operation{rejected.op})
			rest := ready[:0]
			for _, op := range ready {
				if op != rejected.op {
					rest = append(rest, op)
				}
			}
			ready = rest
		default:
			c.failed(ready, err)
			return
		}
	}
}

// failed answers a batch that was not written, and keeps what must be.
func (c *committer) failed(batch []operation, err error) {
	var answered []operation
	kept := 0
	for _, op := range batch {
		p := op.status()
		if p.durable && !c.hurried.Load() && !errors.Is(err, errFenced) {
			c.kept = append(c.kept, op)
			kept++
			continue
		}
		p.err = err
		answered = append(answered, op)
	}
	if kept > 0 {
		wait := c.backoff.NextBackOff()
		c.again.Reset(wait)
		c.log.Error().Err(err).Int("operations", kept).Dur("again_in", wait).
			Msg("the store took no write; trying again")
	}
	if len(answered) > 0 {
		c.tell(answered)
	}
}
