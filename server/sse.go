package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/tmaxmax/go-sse"

	"gateway/queue"
)

const (
	// writeTimeout is how long a client has to take one write; then it is cut off.
	writeTimeout = 30 * time.Second
	// firstByte is how long a stream may stay silent before its head is sent. Until then a restart holds
	// the request and the client notices nothing; later a proxy in between might give up.
	firstByte = 10 * time.Second
	// waitingNotice is how long a turn has waited when those who follow it are told why, and how often they
	// are told again when that changes.
	waitingNotice = 2 * time.Second
	// keepAlive is the longest silence inside a stream.
	keepAlive = 15 * time.Second
)

// stream writes server-sent events. Nothing is sent before the first one.
//
// It writes through the ResponseWriter that it was given. sse.Session unwraps it and writes to the
// innermost one, behind the back of the gate, which must know whether anything was written.
type stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	open bool
}

func newStream(w http.ResponseWriter) *stream {
	return &stream{w: w, rc: http.NewResponseController(w)}
}

// begin sends the head of the stream, once.
func (s *stream) begin() error {
	if err := setWriteDeadline(s.rc, time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if s.open {
		return nil
	}
	s.open = true
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	s.w.WriteHeader(http.StatusOK)
	return nil
}

// send writes one event whose data is a JSON document; name and id may be empty. It is on its way once
// flush returned.
func (s *stream) send(name, id string, document any) error {
	data, err := encode(document)
	if err != nil {
		return fmt.Errorf("server: encoding an event: %w", err)
	}
	return s.sendText(name, id, string(bytes.TrimSuffix(data, []byte("\n"))))
}

func (s *stream) sendText(name, id, data string) error {
	var m sse.Message
	if name != "" {
		m.Type = sse.Type(name)
	}
	if id != "" {
		m.ID = sse.ID(id)
	}
	m.AppendData(data)
	return s.write(&m)
}

// comment writes what clients skip and proxies take for life.
func (s *stream) comment(text string) error {
	var m sse.Message
	m.AppendComment(text)
	return s.write(&m)
}

func (s *stream) write(m *sse.Message) error {
	if err := s.begin(); err != nil {
		return err
	}
	if _, err := m.WriteTo(s.w); err != nil {
		return fmt.Errorf("server: writing an event: %w", err)
	}
	return nil
}

// pass writes events that are encoded already.
func (s *stream) pass(events []byte) error {
	if err := s.begin(); err != nil {
		return err
	}
	if _, err := s.w.Write(events); err != nil {
		return fmt.Errorf("server: writing events: %w", err)
	}
	return nil
}

func (s *stream) flush() error {
	if err := s.rc.Flush(); err != nil {
		return fmt.Errorf("server: flushing events: %w", err)
	}
	return nil
}

// end flushes and leaves the connection without a deadline for the answer after this one.
func (s *stream) end() error {
	if err := s.begin(); err != nil {
		return err
	}
	return errors.Join(s.flush(), setWriteDeadline(s.rc, time.Time{}))
}

func setWriteDeadline(rc *http.ResponseController, t time.Time) error {
	if err := rc.SetWriteDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("server: write deadline: %w", err)
	}
	return nil
}

// lastEvents is how long a stream waits for the end of its turn once the gateway retires.
const lastEvents = 250 * time.Millisecond

// retired ends a stream because the gateway retires. It wraps queue.ErrClosed, so that a stream that has
// written nothing goes back to the gate by returning it.
type retired struct{ Notice }

func (r *retired) Error() string { return "server: " + r.Reason }

func (r *retired) Unwrap() error { return queue.ErrClosed }

// cutShort is what a stream that has begun says when it ends before the turn does: a clean end would look
// like a whole answer. resume says how to go on. stop is nil unless the gateway retires.
func cutShort(log *zerolog.Logger, r *http.Request, err error, resume string) (e *apiError, stop *retired) {
	if !errors.As(err, &stop) {
		e = explain(err)
		e.logFault(log, r, err)
		return e, nil
	}
	code, message := "gateway_restarting", "the gateway restarts; the turn is safe and goes on. Try: "
	if stop.RestartExpectedMS == nil {
		code, message = "gateway_stopping", "the gateway stops; the turn is safe and goes on when it is back. Try: once it is, "
	}
	return &apiError{status: http.StatusServiceUnavailable, kind: typeServer, code: code, message: message + resume}, stop
}

// retirement says when open streams must end, and why.
type retirement struct {
	mu   sync.Mutex
	done chan struct{} // closed when they must
	why  Notice
}

func newRetirement() *retirement { return &retirement{done: make(chan struct{})} }

// begin ends the open streams.
func (r *retirement) begin(n Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why = n
	select {
	case <-r.done:
	default:
		close(r.done)
	}
}

// over is for the next generation, whose streams may stay.
func (r *retirement) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		r.done = make(chan struct{})
	default:
	}
}

// begun returns the channel that is closed when the streams that are open now must end.
func (r *retirement) begun() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

// notice is what the streams are told then.
func (r *retirement) notice() Notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// update is what there is to tell about a turn: its next event, or else why it waits, or else nothing, which
// keeps a connection alive.
type update struct {
	event *queue.Event
	waits *queue.Place
}

// follower is the part of a queue that a stream needs.
type follower interface {
	Follow(ctx context.Context, id string, after int64) iter.Seq2[queue.Event, error]
	Place(id string) (queue.Place, bool)
}

// follow yields the turn's events after a sequence, notices when it waits, and an empty update when there was
// nothing for a while; and an error of type [retired] once the gateway retires. An error is the last thing it
// yields; without one the turn has ended.
func follow(ctx context.Context, retirement *retirement, q follower, id string, after int64) iter.Seq2[update, error] {
	return func(yield func(update, error) bool) {
		retiring := retirement.begun()
		ended := func(err error) {
			select {
			case <-retiring:
				err = &retired{retirement.notice()} // whatever else it was, this is why
			default:
				if errors.Is(err, queue.ErrClosed) {
					err = &retired{Notice{Reason: "gateway stopping"}}
				}
			}
			yield(update{}, err)
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
			for range entries { //nolint:revive // until the goroutine is gone
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
				case !yield(update{event: &got.event}, nil):
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
				case !yield(update{waits: &place}, nil):
					return
				}
				told = place
			case <-silence.C:
				if !yield(update{}, nil) {
					return
				}
			case <-retireSoon:
				// A turn that ended in the drain may have its last events on their way.
				retireSoon, late = nil, time.After(lastEvents)
			case <-late:
				ended(queue.ErrClosed)
				return
			}
			silence.Reset(keepAlive)
		}
	}
}
