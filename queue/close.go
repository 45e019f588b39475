package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Of the time that Close is given, this much (at most a quarter) is kept for writing down what became of
// the attempts; and this much longer it may take when there was not enough.
const (
	closeReserve = 500 * time.Millisecond
	closeExtra   = time.Second
)

// Close interrupts what runs, gives it CancelGrace (or what ctx leaves) to end, writes down what became
// of it, flushes and closes the store. Later calls of other methods return ErrClosed. It is idempotent:
// every call returns the result of the first.
func (q *Queue) Close(ctx context.Context) error {
	q.closing.Do(func() { q.closeErr = q.close(ctx, q.store.close) })
	if q.handedOver.Load() {
		return errors.Join(q.closeErr, q.store.letGo())
	}
	return q.closeErr
}

// HandOver is Close for a store that the next generation opens at once: its log stays as it is, which spares both
// of them to wait for the disk. Close it once the next generation has the store open.
func (q *Queue) HandOver(ctx context.Context) error {
	q.closing.Do(func() {
		q.closeErr = q.close(ctx, q.store.handOver)
		q.handedOver.Store(q.closeErr == nil)
	})
	return q.closeErr
}

// Fold begins to bring the store's log into its file while the queue works, so that who opens the store after a
// HandOver has little to read: reading 16 MB of log, which is as long as it gets, takes six milliseconds.
func (q *Queue) Fold() {
	q.background.Go(func() {
		if err := q.store.fold(q.backgroundCtx); err != nil {
			if q.backgroundCtx.Err() == nil {
				q.cfg.Log.Warn().Err(err).Msg("the store's log is left to the next start")
			}
			return
		}
		q.committer.foldRest()
	})
}

func (q *Queue) close(ctx context.Context, closeStore func() error) error {
	grace := q.cfg.CancelGrace
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		grace = max(0, min(grace, left-min(closeReserve, left/4)))
	}
	q.endBackground()
	idle := q.scheduler.idle
	q.scheduler.ask(func() { q.scheduler.stop(ErrClosed, grace) })
	q.background.Wait()

	var errs []error
	if !waitFor(ctx, idle) {
		// Whoever ignores its context is abandoned, and a store that takes no writes is given up.
		q.scheduler.ask(func() { q.scheduler.stop(ErrClosed, 0) })
		extra, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeExtra)
		defer cancel()
		if !waitFor(extra, idle) {
			q.committer.giveUp()
			errs = append(errs, errors.New("queue: what became of the running turns could not be written; "+
				"the next start counts them as interrupted by a crash"))
		}
	}
	q.committer.close()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeExtra)
	defer cancel()
	if !waitFor(last, q.committer.done) {
		q.committer.giveUp()
		final, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeExtra)
		defer cancel()
		if !waitFor(final, q.committer.done) {
			// The disk hangs: leave the store to the end of the process.
			q.hub.end(ErrClosed)
			q.closed.Store(true)
			return errors.Join(append(errs, errors.New("queue: the store does not answer"))...)
		}
	}
	q.scheduler.mail.close()
	<-q.scheduler.done
	q.hub.end(ErrClosed)
	q.closed.Store(true)
	if err := closeStore(); err != nil {
		errs = append(errs, fmt.Errorf("queue: close the store: %w", err))
	}
	return errors.Join(errs...)
}

// waitFor reports whether done was closed before ctx ended.
func waitFor(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
