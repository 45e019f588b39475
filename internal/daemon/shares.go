package daemon

import (
	"context"
	"time"
)

// share is the part of a state's time that one step of its work has. The effects divide the time up to the deadline that
// their context carries; no step has a time of its own. The zero value is all of it.
type share struct {
	// Of what is left, the step leaves so much to the steps after it, and has at least this part (of 100) of it.
	leaves  time.Duration
	atLeast int
	// The step has at most so much of what is left, and at most this part (of 100); 0 is no bound.
	atMost     time.Duration
	atMostPart int
}

// What each step has. With the default durations of the states that is the time in brackets.
var (
	// ShuttingDown (shutdown_timeout, 5s). What is left to the end of it is for the hop.
	//
	// closingEnd: the store is closed, and each turn that still runs was interrupted, has ended or was abandoned, and is
	// written down (4.8 s). queue.Config.CloseReserve says how much of that the turns leave to the store: with
	// shutdown_timeout 60s an interrupted turn has 57 s.
	closingEnd = share{leaves: 200 * time.Millisecond, atLeast: 80}
	// closeReserve is what interrupted turns leave to what comes after them, at most half of the time (2.3 s).
	closeReserve = 2300 * time.Millisecond
	// answersEnd: answers that are under way end as the turns do; then their connections are cut (3 s).
	answersEnd = share{leaves: 2 * time.Second, atLeast: 60}

	// Respawning (respawn_timeout, 10s). Clients wait meanwhile.
	//
	// answersCarry: answers that are under way may end before the image is replaced (1 s).
	answersCarry = share{atMost: time.Second, atMostPart: 10}
	// answersFollow: the same before a hand-over to a successor, after which they may still end (50 ms).
	answersFollow = share{atMost: 50 * time.Millisecond, atMostPart: 10}

	// Starting (start_timeout, 30s).
	//
	// holdsOff: a start waits at most so long because the ones before it have failed (15 s).
	holdsOff = share{atMostPart: 50}
	// awaitsServe: a successor waits so long for its predecessor to say that it may serve, and gives up before its state
	// does (15 s).
	awaitsServe = share{atMostPart: 50}

	// Draining (drain_timeout, 30s) is divided by config.Lifecycle.PrepareTimeout, as configurations are checked by it:
	// the successor has at most three quarters to prepare. Stopped gives its one effect 3 s; see fsm.
)

// of is how much of the time left.
func (s share) of(left time.Duration) time.Duration {
	d := max(left-s.leaves, left*time.Duration(s.atLeast)/100)
	if s.atMost > 0 {
		d = min(d, s.atMost)
	}
	if s.atMostPart > 0 {
		d = min(d, left*time.Duration(s.atMostPart)/100)
	}
	return max(d, 0)
}

// within returns a context that ends when the step's share of what is left of the state is over. Where the state has no
// deadline, neither has the step, unless the share has a bound.
func (s share) within(ctx context.Context) (context.Context, context.CancelFunc) {
	at, ok := ctx.Deadline()
	switch {
	case ok:
		return context.WithTimeout(ctx, s.of(time.Until(at)))
	case s.atMost > 0:
		return context.WithTimeout(ctx, s.atMost)
	default:
		return context.WithCancel(ctx)
	}
}
