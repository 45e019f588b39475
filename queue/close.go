package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// leastReserve is what [Config.CloseReserve] is when it is not set. So long writing and closing may also take where ctx
// leaves less: a store that is given up for milliseconds costs each turn that ran an attempt.
const leastReserve = time.Second

// Close interrupts what runs, gives it the time until ctx's deadline but for CloseReserve (without a deadline,
// CancelGrace) to end, writes down what became of it, flushes and closes the store. Later calls of other methods return
// ErrClosed. It is idempotent: every call returns the result of the first.
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
				q.cfg.Log.Warn().Err(err).Msg("the store's log stays until the next start")
			}
			return
		}
		q.committer.foldRest()
	})
}

func (q *Queue) close(ctx context.Context, closeStore func() error) error {
	grace, reserve := q.closeTimes(ctx)
	end, reserve := time.Now().Add(grace), max(reserve, leastReserve)
	// within waits until so many percent of the reserve are used, whatever becomes of ctx; when that has ended before
	// its time, the reserve counts from there.
	within := func(percent int, done <-chan struct{}) bool {
		if now := time.Now(); ctx.Err() != nil && now.Before(end) {
			end = now
		}
		last, cancel := context.WithDeadline(context.WithoutCancel(ctx), end.Add(reserve*time.Duration(percent)/100))
		defer cancel()
		return waitFor(last, done)
	}
	q.endBackground()
	idle := q.scheduler.idle
	q.scheduler.ask(func() { q.scheduler.stop(ErrClosed, grace) })
	q.background.Wait()

	var errs []error
	ending, cancel := context.WithDeadline(ctx, end.Add(reserve/5))
	defer cancel()
	if !waitFor(ending, idle) {
		// Whoever ignores its context is abandoned, and a store that takes no writes is given up.
		q.scheduler.ask(func() { q.scheduler.stop(ErrClosed, 0) })
		if !within(60, idle) {
			q.committer.giveUp()
			errs = append(errs, errors.New("queue: the ends of the running turns could not be written; "+
				"the next start counts them as interrupted by a crash"))
		}
	}
	q.committer.close()
	if !within(80, q.committer.done) {
		q.committer.giveUp()
		if !within(100, q.committer.done) {
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

// closeTimes divides the time that Close has: what attempts have to end, and what is left for the rest.
func (q *Queue) closeTimes(ctx context.Context) (grace, reserve time.Duration) {
	reserve = q.cfg.CloseReserve
	if reserve <= 0 {
		reserve = leastReserve
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return q.cfg.CancelGrace, reserve
	}
	left := max(0, time.Until(deadline))
	reserve = min(reserve, left/2)
	return left - reserve, reserve
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
