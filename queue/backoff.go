package queue

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// maxBackoff is the longest that a turn waits between two attempts.
const maxBackoff = time.Minute

// temporaryError is an error that may have gone by the next attempt.
type temporaryError struct {
	error
	after time.Duration
}

func (e *temporaryError) Unwrap() error { return e.error }

// Temporary marks an error of [Runner.Run] as one that may go away by itself. While attempts are left the
// turn goes back to the head of its session and waits, longer each time and at least for after (at most a
// minute), before it starts again. A turn that may not run twice ([FailTurn]) fails at once. nil stays nil.
func Temporary(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &temporaryError{error: err, after: after}
}

// IsTemporary reports whether the error was marked by [Temporary].
func IsTemporary(err error) bool {
	_, ok := errors.AsType[*temporaryError](err)
	return ok
}

// pauseAfter is how long a turn waits after so many attempts.
func (c *Config) pauseAfter(attempts int) time.Duration {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = c.RetryBackoff, maxBackoff, 2
	pause := b.NextBackOff()
	for range min(attempts, 20) - 1 {
		pause = b.NextBackOff()
	}
	return pause
}

// pauseAfterCrash spares a turn that was there when the gateway crashed, until it was there again.
func (c *Config) pauseAfterCrash(attempts int) time.Duration {
	if attempts < 2 {
		return 0
	}
	return c.pauseAfter(attempts - 1)
}

// pause is how long the turn waits before the attempt after the one that ended with err.
func (a *attempt) pause(err error) time.Duration {
	pause := a.pauseAfter(a.turn.Attempt)
	if temporary, ok := errors.AsType[*temporaryError](err); ok {
		pause = max(pause, min(temporary.after, maxBackoff))
	}
	return pause
}

// hold keeps the place, and so its session, from starting for a while.
func (s *scheduler) hold(p *place, pause time.Duration) {
	pause = min(pause, maxBackoff) // the clock may have been set back
	if pause <= 0 {
		return
	}
	p.backoff = time.AfterFunc(pause, func() {
		s.mail.put(func() {
			p.backoff = nil
			p.session.seat()
		})
	})
}

// unhold stops the timer.
func (p *place) unhold() {
	if p.backoff != nil {
		p.backoff.Stop()
		p.backoff = nil
	}
}
