package api

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"gateway/queue"
)

// Notice tells the open streams why they end.
type Notice struct {
	Reason string `json:"reason"` // "gateway restarting" or "gateway stopping"
	// RestartExpectedMS is when the gateway is expected back, in milliseconds; nil for never.
	RestartExpectedMS *int64 `json:"restart_expected_ms"`
}

const (
	// firstByte is how long a stream may stay silent before its head is sent. Until then a restart holds
	// the request and the client notices nothing; later a proxy in between might give up.
	firstByte = 10 * time.Second
	// waitingNotice is how long a turn has waited when those who follow it are told why, and how often they
	// are told again when that changes.
	waitingNotice = 2 * time.Second
	// KeepAlive is the longest silence inside a stream.
	KeepAlive = 15 * time.Second
)

// LastEvents is how long a stream waits for the end of its turn once the gateway retires.
const LastEvents = 250 * time.Millisecond

// Retired ends a stream because the gateway retires. It wraps queue.ErrClosed, so that a stream that has
// written nothing goes back to the gate by returning it.
type Retired struct{ Notice }

// Error implements error.
func (r *Retired) Error() string { return "server: " + r.Reason }

// Unwrap returns [queue.ErrClosed].
func (r *Retired) Unwrap() error { return queue.ErrClosed }

// CutShort is what a stream that has begun says when it ends before the turn does: a clean end would look
// like a whole answer. resume says how to go on. stop is nil unless the gateway retires.
func CutShort(log *zerolog.Logger, r *http.Request, err error, resume string) (e *Error, stop *Retired) {
	if !errors.As(err, &stop) {
		e = Explain(err)
		e.LogFault(log, r, err)
		return e, nil
	}
	code, message := "gateway_restarting", "the gateway restarts; the turn is safe and goes on. Try: "
	if stop.RestartExpectedMS == nil {
		code, message = "gateway_stopping", "the gateway stops; the turn is safe and goes on when it is back. Try: once it is, "
	}
	return &Error{Status: http.StatusServiceUnavailable, Type: TypeServer, Code: code, Message: message + resume}, stop
}

// Retirement tells open streams when they must end, and why. The daemon begins it through the server; every stream and
// every WebSocket watches it.
type Retirement struct {
	mu   sync.Mutex
	done chan struct{} // closed when they must
	why  Notice
}

// NewRetirement returns a retirement that has not begun.
func NewRetirement() *Retirement { return &Retirement{done: make(chan struct{})} }

// Begin ends the open streams.
func (r *Retirement) Begin(n Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = n
	select {
	case <-r.done:
	default:
		close(r.done)
	}
}

// Reset is for the next generation, whose streams may stay.
func (r *Retirement) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		r.done = make(chan struct{})
	default:
	}
}

// Begun returns the channel that is closed when the streams that are open now must end.
func (r *Retirement) Begun() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

// Notice is what the streams are told then.
func (r *Retirement) Notice() Notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// Update is what there is to tell about a turn: its next event, or else why it waits, or else nothing, which
// keeps a connection alive.
type Update struct {
	Event *queue.Event
	Waits *queue.Place
}

// follower is the part of a queue that a stream needs.
type follower interface {
	Follow(ctx context.Context, id string, after int64) iter.Seq2[queue.Event, error]
	Place(id string) (queue.Place, bool)
}

// Follow yields the turn's events after a sequence, notices when it waits, and an empty Update when there was
// nothing for a while; and an error of type [Retired] once the gateway retires. An error is the last thing it
// yields; without one the turn has ended.
func Follow(ctx context.Context, retirement *Retirement, q follower, id string, after int64) iter.Seq2[Update, error] {
	return func(yield func(Update, error) bool) {
		retiring := retirement.Begun()
		ended := func(err error) {
			select {
			case <-retiring:
				err = &Retired{retirement.Notice()} // whatever else it was, this is why
			default:
				if errors.Is(err, queue.ErrClosed) {
					err = &Retired{Notice{Reason: "gateway stopping"}}
				}
			}
			yield(Update{}, err)
		}

		ctx, cancel := context.WithCancel(ctx)
		type entry struct {
			event queue.Event
			err   error
		}
		entries := make(chan entry)
		go func() {
			defer close(entries)
			for event, err := range q.Follow(ctx, id, after) {
				select {
				case entries <- entry{event, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
		defer func() {
			cancel()
			for range entries { // until the goroutine is gone
			}
		}()

		retireSoon, late := retiring, (<-chan time.Time)(nil)
		silence := time.NewTimer(firstByte)
		defer silence.Stop()
		waiting := time.NewTicker(waitingNotice)
		defer waiting.Stop()
		var told queue.Place
		for {
			select {
			case got, more := <-entries:
				switch {
				case !more && ctx.Err() != nil:
					ended(context.Cause(ctx))
					return
				case !more:
					return
				case got.err != nil:
					ended(got.err)
					return
				case late != nil && got.event.Type == queue.EventInterrupted:
					ended(queue.ErrClosed)
					return
				case !yield(Update{Event: &got.event}, nil):
					return
				}
				if got.event.Type == queue.EventInterrupted || got.event.Type == queue.EventRequeued {
					waiting.Reset(waitingNotice)
				}
			case <-waiting.C:
				place, waits := q.Place(id)
				switch {
				case !waits:
					waiting.Stop() // it runs
					continue
				case place == told:
					continue
				case !yield(Update{Waits: &place}, nil):
					return
				}
				told = place
			case <-silence.C:
				if !yield(Update{}, nil) {
					return
				}
			case <-retireSoon:
				// A turn that ended in the drain may have its last events on their way.
				retireSoon, late = nil, time.After(LastEvents)
			case <-late:
				ended(queue.ErrClosed)
				return
			}
			silence.Reset(KeepAlive)
		}
	}
}
