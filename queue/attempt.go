package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"gateway/internal/failpoint"
)

// maxBuffered is how much text may wait for the disk before Emit waits too, and by that how large an event becomes: each
// reader of a stream holds one or two.
const maxBuffered = 32 << 10

var errOver = errors.New("queue: the attempt is over")

// attempt is one run of a turn. It is the only writer of the turn's events while it runs, with at most one
// operation under way, so it can number them itself. It is over once, by whichever comes first: Run
// returned, or its grace after the end of its context passed; what Run does later changes nothing.
type attempt struct {
	place  *place
	runner Runner
	store  Store
	submit func(...operation) bool
	log    zerolog.Logger
	limit  int // bytes of output
	// attempts is how many counted ones the turn gets, pauseAfter how long it waits after one.
	attempts   int
	pauseAfter func(attempts int) time.Duration
	ctx        context.Context
	cancel     context.CancelCauseFunc

	mu      sync.Mutex
	turn    Turn   // as on disk
	text    []byte // all that was emitted
	detail  []byte
	written int  // how much of text is on disk
	taken   int  // how much of text is on disk or on its way there
	asked   bool // an append waits for the committer to take it
	writing bool // an append was taken and is not on disk yet
	room    chan struct{}
	cause   error // why the context was ended; nil while it was not
	grace   *time.Timer
	until   time.Time // when the grace is over
	skipped bool      // Run is not called
	failure error     // fails the turn whatever Run returns
	over    bool
	ending  *endTurn // waits for the append under way
}

func (a *attempt) run() { a.finish(a.call()) }

// call runs the runner and turns a panic into an error.
func (a *attempt) call() (err error) {
	returned := false
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			a.log.Error().Str("turn", a.turn.ID).Interface("panic", p).Bytes("stack", debug.Stack()).
				Msg("the agent panicked")
		} else if !returned {
			err = errors.New("the agent ended its goroutine")
		}
	}()
	failpoint.At("turn.runs")
	err = a.runner.Run(a.ctx, Work{Turn: a.turn, History: a.history, Emit: a.emit, Describe: a.describe})
	failpoint.At("turn.ran")
	returned = true
	return err
}

func (a *attempt) history(ctx context.Context, limit int) ([]Turn, error) {
	return a.store.history(ctx, a.turn.Session, a.place.seq, limit)
}

// emit is [Work.Emit]. Text gathers while the append under way is committed, and makes up the next one.
func (a *attempt) emit(text string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.over:
		return a.overErr()
	case a.failure != nil:
		return a.failure
	case len(a.text)+len(a.detail)+len(text) > a.limit:
		return a.tooLarge()
	case text == "":
		return nil
	}
	a.text = append(a.text, text...)
	a.ask()
	for len(a.text)-a.written > maxBuffered && !a.over && a.failure == nil && a.ctx.Err() == nil {
		if a.room == nil {
			a.room = make(chan struct{})
		}
		room := a.room
		a.mu.Unlock()
		select {
		case <-room:
		case <-a.ctx.Done():
		}
		a.mu.Lock()
	}
	if a.over {
		return a.overErr()
	}
	return nil
}

// describe is [Work.Describe].
func (a *attempt) describe(detail json.RawMessage) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.over:
		return a.overErr()
	case a.failure != nil:
		return a.failure
	case !json.Valid(detail):
		return errors.New("queue: the detail is not JSON")
	case len(a.text)+len(detail) > a.limit:
		return a.tooLarge()
	}
	a.detail = slices.Clone(detail)
	return nil
}

// tooLarge fails the attempt. Needs the lock.
func (a *attempt) tooLarge() error {
	a.failure = fmt.Errorf("the output is larger than %d bytes", a.limit)
	return a.failure
}

func (a *attempt) overErr() error {
	if a.cause != nil {
		return fmt.Errorf("%w: %w", errOver, a.cause)
	}
	return errOver
}

// ask makes the committer come for the text, unless it is coming already. Needs the lock.
func (a *attempt) ask() {
	if a.asked || a.writing || a.over || a.failure != nil || a.taken == len(a.text) {
		return
	}
	a.asked = a.submit(&appendText{
		progress: progress{durable: true}, attempt: a, seq: a.place.seq, number: a.turn.Attempt,
	})
}

// take fills the append with all text that has gathered until the committer came. It reports false when
// there is nothing to write: the end of the attempt carries the rest.
func (a *attempt) take(op *appendText) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if op.event.Seq != 0 {
		return true // tried again
	}
	a.asked = false
	if a.over || a.taken == len(a.text) {
		return false
	}
	op.event = a.event(1, EventDelta, string(a.text[a.taken:]), now())
	a.taken = len(a.text)
	a.writing = true
	return true
}

// appended is what the scheduler was told about an append.
func (a *attempt) appended(op *appendText) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writing = false
	if op.err == nil {
		a.turn.LastEvent = op.event.Seq
		a.written += len(op.event.Text)
	} else {
		a.taken -= len(op.event.Text) // goes with the end
		a.failure = fmt.Errorf("the output could not be written: %w", op.err)
	}
	a.wake()
	if a.ending != nil {
		a.end(a.ending)
		return
	}
	a.ask()
}

func (a *attempt) wake() {
	if a.room != nil {
		close(a.room)
		a.room = nil
	}
}

// event makes the n-th event after those on disk. Needs the lock.
func (a *attempt) event(n int64, typ EventType, text string, at time.Time) Event {
	return Event{
		Turn: a.turn.ID, Seq: a.turn.LastEvent + n, Type: typ,
		Attempt: a.turn.Attempt, Text: text, At: at,
	}
}

// view is the turn as it is on disk.
func (a *attempt) view() Turn {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.turn
}

// stop ends the context and gives Run the grace to return. The first cause stays; a later call can only
// shorten the grace.
func (a *attempt) stop(cause error, grace time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	until := time.Now().Add(grace)
	if a.cause == nil {
		a.cause = cause
		a.cancel(&endOfRun{cause, until})
	} else {
		if a.until.Before(until) {
			return
		}
		a.grace.Stop()
	}
	a.until = until
	a.grace = time.AfterFunc(grace, a.abandon)
}

// endOfRun is the cause of a context that was ended by [attempt.stop].
type endOfRun struct {
	cause error
	until time.Time
}

// Error implements error.
func (e *endOfRun) Error() string { return e.cause.Error() }

// Unwrap returns why the attempt was stopped.
func (e *endOfRun) Unwrap() error { return e.cause }

// Grace is how long Run still has to return before the attempt is abandoned, for the context of a [Work] that has ended.
// False when it has not ended, or for a reason of the runner's own.
func Grace(ctx context.Context) (left time.Duration, ok bool) {
	end, ok := errors.AsType[*endOfRun](context.Cause(ctx))
	if !ok {
		return 0, false
	}
	return max(0, time.Until(end.until)), true
}

// skip ends an attempt whose Run was not called.
func (a *attempt) skip(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cause, a.skipped = cause, true
	a.close(cause, false)
}

// abandon ends the attempt although Run has not returned.
func (a *attempt) abandon() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	a.log.Error().Str("turn", a.turn.ID).Str("session", a.turn.Session).Str("lane", a.turn.Lane).
		Msg("the attempt ignored the end of its context and was abandoned")
	a.close(errOver, true)
}

// finish makes the attempt over, err being what Run returned.
func (a *attempt) finish(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.close(err, false)
	}
}

// close makes the attempt over and begins its end. Needs the lock.
func (a *attempt) close(err error, abandoned bool) {
	a.over = true
	if a.grace != nil {
		a.grace.Stop()
	}
	a.cancel(errOver)
	a.wake()
	op := a.ends(err)
	op.abandoned = abandoned
	if a.writing {
		a.ending = op
	} else {
		a.end(op)
	}
}

// outcome says in what the attempt ended, err being what Run returned, and why. Needs the lock.
func (a *attempt) outcome(err error) (on occurrence, why string) {
	switch {
	case errors.Is(a.cause, ErrSuperseded):
		return onSupersede, reason(a.cause)
	case errors.Is(a.cause, ErrCancelled):
		return onCancel, reason(a.cause)
	case a.failure != nil:
		return onFailure, a.failure.Error()
	case err == nil:
		return onComplete, ""
	case a.cause != nil:
		return onInterruption, "interrupted by the gateway"
	case IsTemporary(err):
		return onTemporaryFailure, err.Error()
	}
	return onFailure, err.Error()
}

// ends is the end of the attempt: the table decides what becomes of the turn. Needs the lock.
func (a *attempt) ends(err error) *endTurn {
	on, why := a.outcome(err)
	f := a.turn.facts(a.attempts)
	if !a.skipped {
		f |= agentCalled
	}
	r := turnRules.of(Running, on, f)
	op := &endTurn{
		progress: progress{durable: true}, place: a.place, seq: a.place.seq,
		number: a.turn.Attempt, turn: a.turn, event: r.Event, why: why,
	}
	r.apply(&op.turn)
	if r.To.Final() {
		op.turn.Error = why
	}
	if r.Pause {
		op.pause = a.pause(err)
		at := now().Add(op.pause).Truncate(time.Microsecond)
		op.turn.NotBefore = &at
	}
	return op
}

// reason is what a cancelled turn says.
func reason(cause error) string {
	if errors.Is(cause, ErrSuperseded) {
		return "superseded by a newer message"
	}
	return "cancelled on request"
}

// end numbers the last events and has the end written down. Needs the lock, and no append under way.
func (a *attempt) end(op *endTurn) {
	at := now()
	rest := string(a.text[a.taken:])
	if op.turn.Status == Completed {
		op.turn.Detail = a.detail
		if a.taken == 0 {
			op.turn.Output = rest
		} else {
			op.turn.Output = string(a.text)
		}
	}
	if rest != "" && op.turn.Status != Queued {
		op.events = append(op.events, a.event(1, EventDelta, rest, at))
	}
	if op.turn.Status.Final() {
		op.turn.FinishedAt = &at
	}
	last := a.event(int64(len(op.events)+1), op.event, op.why, at)
	last.Detail = op.turn.Detail
	op.events = append(op.events, last)
	// op.turn was copied when the attempt was over; the append since then moved the log on.
	op.turn.LastEvent = a.turn.LastEvent + int64(len(op.events))
	a.submit(op)
}

// asFailed is the end to write when the result itself cannot be.
func (op *endTurn) asFailed(err error) *endTurn {
	op.replaced = true
	last := op.events[len(op.events)-1]
	r := turnRules.of(Running, onUnwritable, 0)
	turn := op.turn
	turn.Attempt = op.number
	r.apply(&turn)
	turn.Output, turn.Detail, turn.NotBefore = "", nil, nil
	turn.Error = "the result could not be written: " + err.Error()
	turn.FinishedAt = &last.At
	turn.LastEvent = op.events[0].Seq
	final := Event{
		Turn: turn.ID, Seq: turn.LastEvent, Type: r.Event, Attempt: op.number, Text: turn.Error, At: last.At,
	}
	return &endTurn{
		progress: progress{durable: true}, place: op.place, seq: op.seq, number: op.number,
		turn: turn, events: []Event{final},
	}
}
