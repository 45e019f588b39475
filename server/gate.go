package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"gateway/fsm"
	"gateway/queue"
	"gateway/server/api"
	"gateway/server/carry"
)

const (
	// maxHeld is how many requests may wait at the gate at once.
	maxHeld = 10_000
	// maxHold is how long a request waits at the gate at most; the deadlines of the states end it before,
	// unless they were configured to be very long.
	maxHold = 15 * time.Minute
)

// What the gate can answer instead of a Backend.
var (
	errRefused = api.Stopping(nil)
	errHeldMax = api.Unavailable("too_many_held", "too many requests wait for the restart. Try: again in a moment", nil)
)

// gate admits requests by the published state of the lifecycle: it has no flag of its own that could stay
// behind.
type gate struct {
	lifecycle Lifecycle
	held      atomic.Int64

	mu       sync.Mutex
	backend  *api.Backend
	changed  chan struct{} // closed when backend or carrying changed
	carrying bool
	closed   bool // nobody will serve here again
	relayed  func() bool
}

// newGate: relayed reports whether the successor answers what cannot be carried to it.
func newGate(l Lifecycle, relayed func() bool) *gate {
	return &gate{lifecycle: l, relayed: relayed, changed: make(chan struct{})}
}

// bodyLimit is the largest body of a request to the generation that is published now.
func (s *Server) bodyLimit() int64 {
	b, _, _, _ := s.gate.look()
	return b.BodyLimit()
}

func (g *gate) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wakeLocked()
}

func (g *gate) publish(b *api.Backend) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.backend = b
	g.wakeLocked()
}

func (g *gate) carry(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.carrying = on
	g.wakeLocked()
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.wakeLocked()
}

func (g *gate) wakeLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) look() (b *api.Backend, carrying, closed bool, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.backend, g.carrying, g.closed, g.changed
}

// admit waits until the request may be served and returns the generation to serve it from, another one
// than `not`, whose queue has closed. c is nil for a connection that cannot be carried over: it waits until this
// process serves again, or its successor does.
func (g *gate) admit(ctx context.Context, c *carry.Served, not *api.Backend) (*api.Backend, error) {
	var deadline <-chan time.Time
	for {
		admission, state := g.lifecycle.Admission()
		b, carrying, closed, changed := g.look()
		switch {
		case c == nil && g.relayed():
			return nil, errRelayed
		case closed:
			return nil, errRefused
		case c == nil && carrying:
		case carrying || (c != nil && c.IsCarrying()):
			return nil, carry.ErrCarried
		case admission == fsm.Refused:
			return nil, errRefused
		case admission == fsm.Open && b != nil && b != not:
			return b, nil
		}
		if deadline == nil {
			if g.held.Add(1) > maxHeld {
				g.held.Add(-1)
				return nil, errHeldMax
			}
			defer g.held.Add(-1)
			timer := time.NewTimer(maxHold)
			defer timer.Stop()
			deadline = timer.C
		}
		select {
		case <-state:
		case <-changed:
		case <-deadline:
			return nil, errRefused
		case <-ctx.Done():
			if c != nil && c.IsCarrying() { // the deadline that interrupts a connection also ends its context
				return nil, carry.ErrCarried
			}
			return nil, context.Cause(ctx)
		}
	}
}

// gated serves an endpoint that needs a Backend. The request is read whole before it waits, and the
// handler runs again on the next Backend when its queue closed under it before anything was written. Every
// POST has an idempotency key by then, so the second run finds the turn of the first.
func (s *Server) gated(h api.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := carry.Of(r.Context())
		insert := ""
		if r.Method == http.MethodPost && r.Header.Get(api.IdempotencyHeader) == "" {
			key := "auto-" + rand.Text()
			r.Header.Set(api.IdempotencyHeader, key)
			insert = api.IdempotencyHeader + ": " + key + "\r\n"
		}
		var body []byte
		var err error
		limit := s.bodyLimit()
		if r.ContentLength > limit {
			endConnection(w, r) // else net/http reads some of it first
			s.writeError(w, r, &http.MaxBytesError{Limit: limit})
			return
		}
		read := func() { body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit)) }
		if c != nil {
			c.ReadBody(read)
		} else {
			read()
		}
		if err != nil {
			if c != nil && c.IsCarrying() {
				s.giveUp(w, r, c, insert)
				return
			}
			if c != nil {
				c.Drop()
			}
			endConnection(w, r)
			s.writeError(w, r, api.IncompleteBody(err))
			return
		}
		if c != nil && c.IsLost() {
			endConnection(w, r)
		}
		var last *api.Backend
		for {
			b, err := s.gate.admit(r.Context(), c, last)
			if errors.Is(err, carry.ErrCarried) {
				s.giveUp(w, r, c, insert)
				return
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			if errors.Is(err, errRelayed) && s.relayed(w, r) {
				return
			}
			if err != nil {
				s.writeError(w, r, err)
				return
			}
			if r, err = s.judgeAgain(r, b); err != nil {
				w.Header().Del(api.TurnHeader) // of the turn that it waited for
				s.writeError(w, r, err)
				return
			}
			out := &watched{ResponseWriter: w}
			err = h(out, r, b)
			if err == nil {
				return
			}
			if out.wrote {
				s.opts.Log.Debug().Err(err).Str("path", r.URL.Path).Msg("the answer was cut short")
				return
			}
			if !errors.Is(err, queue.ErrClosed) {
				if r.Context().Err() != nil && c != nil && c.IsCarrying() {
					s.giveUp(w, r, c, insert)
					return
				}
				s.writeError(w, r, err)
				return
			}
			last = b
		}
	}
}

// endConnection has the connection end with this answer. With HTTP/2 only the request ends: others share the
// connection.
func endConnection(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
}

// giveUp takes the connection from net/http, to be carried with its unanswered request.
func (s *Server) giveUp(w http.ResponseWriter, r *http.Request, c *carry.Served, insert string) {
	if c == nil {
		return
	}
	if c.IsLost() {
		endConnection(w, r)
		s.writeError(w, r, api.Unavailable("gateway_restarting", "the gateway is restarting, and this request is too large to be carried; an accepted turn is kept, and X-Turn-Id names it. Try: again, with the same Idempotency-Key", nil))
		return
	}
	if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
		s.opts.Log.Warn().Err(err).Msg("a held request cannot be carried")
		_ = c.Close()
		return
	}
	c.GiveUp(insert)
}

// watched notes whether anything was written.
type watched struct {
	http.ResponseWriter
	wrote  bool
	status int // of the answer; 0 when there was none
}

// WriteHeader implements http.ResponseWriter.
func (w *watched) WriteHeader(code int) {
	w.wrote = true
	if w.status == 0 && (code >= http.StatusOK || code == http.StatusSwitchingProtocols) {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *watched) Write(p []byte) (int, error) {
	w.wrote = true
	w.status = cmp.Or(w.status, http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }
