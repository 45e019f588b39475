// Package server is what clients talk to: the listeners and the gate, the HTTP API, and what it mounts: OpenAI's
// endpoints and OpenClaw's WebSocket.
//
// The invariant: a request is answered, or held and then answered by whoever serves next. It is refused
// only when the gateway stops, and then it says so.
package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"gateway/server/api"
	"gateway/server/openai"
	"gateway/server/openclaw"
)

const (
	readHeaderTimeout = 30 * time.Second
	idleTimeout       = 5 * time.Minute
	maxHeaderBytes    = 64 << 10
	// refuseTime bounds the refusal of a carried connection.
	refuseTime = 500 * time.Millisecond
)

// Options is what a Server needs for the whole life of the process image.
type Options struct {
	Lifecycle Lifecycle
	Version   string
	// Metrics answers GET /metrics; nil for nothing there.
	Metrics http.Handler
	Log     zerolog.Logger
}

// Server serves HTTP on any number of listeners. It lives through restarts in place: each generation
// publishes its Backend.
type Server struct {
	opts Options
	http *http.Server
	// crossOrigin refuses changes that a page of another origin asks for.
	crossOrigin *http.CrossOriginProtection
	gate        *gate
	roster      *roster
	hub         *openclaw.Hub
	feed        *overview

	bouncer *bouncer
	meter   *meter
	bodies  atomic.Int64 // bytes of requests' bodies that are in memory
	answers answers

	partings sync.WaitGroup // of WebSockets that only their clients have to close

	certificate atomic.Pointer[tls.Certificate] // nil for no TLS
	relay       atomic.Pointer[httputil.ReverseProxy]
	tls         *tls.Config

	retirement *api.Retirement
	openAI     *openai.Endpoints

	mu        sync.Mutex
	listeners []*listener
}

// New returns a server that serves nothing yet.
func New(opts Options) *Server {
	s := &Server{opts: opts, roster: newRoster(), crossOrigin: http.NewCrossOriginProtection(), retirement: api.NewRetirement()}
	s.openAI = openai.New(s.retirement, opts.Log)
	s.hub = openclaw.New(openclaw.Options{Lifecycle: opts.Lifecycle, Version: opts.Version, Retirement: s.retirement, Log: opts.Log})
	s.gate = newGate(opts.Lifecycle, func() bool { return s.relay.Load() != nil })
	s.feed = newOverview(opts.Lifecycle, func() *api.Backend { b, _, _, _ := s.gate.look(); return b }, opts.Log)
	s.tls = s.newTLS()
	s.meter = newMeter()
	s.bouncer = newBouncer(func(limit string) {
		opts.Log.Warn().Str("limit", limit).Msg("connections are refused: too many are open. Try: raise " + limit + ", or see who opens them with: ss -tn")
	})
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			c := connUnder(nc)
			if c == nil {
				return ctx
			}
			if c.local {
				ctx = withTrusted(ctx)
			}
			return withConn(ctx, c)
		},
		ConnState: func(nc net.Conn, state http.ConnState) {
			if c, ok := nc.(*conn); ok && state == http.StateIdle {
				c.answered()
			}
		},
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: api.WriteTimeout, SendPingTimeout: idleTimeout / 2},
		ErrorLog: stdlog.New(complaints{opts.Log.With().Str("from", "net/http").Logger()}, "", 0),
	}
	return s
}

// Listen prepares to serve a TCP or Unix listener. Connections wait in the kernel until Resume. The
// returned function serves until Close or until the listener fails; nil means that it was closed.
func (s *Server) Listen(inner net.Listener, local bool) (serve func() error, err error) {
	d, ok := inner.(deadliner)
	if !ok {
		return nil, fmt.Errorf("server: cannot serve a %T", inner)
	}
	ln := newListener(d, s.roster, local, s.tls, func() bool { return s.certificate.Load() != nil }, s.bouncer)
	ln.pause()
	s.mu.Lock()
	s.listeners = append(s.listeners, ln)
	s.mu.Unlock()
	return func() error {
		defer s.forget(ln)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("server: serving %s: %w", ln.Addr(), err)
		}
		return nil
	}, nil
}

// Publish makes b the generation that requests are served from.
func (s *Server) Publish(b *api.Backend) {
	s.retirement.Reset()
	s.certificate.Store(b.Certificate)
	s.roster.limit(b.Limits)
	s.meter.set(b.Limits.Rate, b.Limits.Burst)
	s.gate.park(false)
	s.gate.publish(b)
}

// Resume accepts connections, the carried ones first: those of the process image before this one, or those
// that Park took in vain.
func (s *Server) Resume(carried []Parked) {
	carried = append(carried, s.roster.endParking()...)
	for _, c := range s.roster.all() {
		c.endParking()
	}
	for _, p := range carried {
		s.Adopt(p)
	}
	for _, ln := range s.allListeners() {
		ln.resume()
	}
}

// Retire tells the open streams to end. Requests that wait for a turn go back to the gate once their
// queue is closed.
func (s *Server) Retire(n api.Notice) {
	s.retirement.Begin(n)
	s.hub.Retire()
}

// Park stops accepting and takes every connection that is not being answered from net/http: idle ones,
// ones whose request is arriving, and ones whose request waits at the gate. Connections that are being
// answered have until ctx ends, and those that speak TLS stay; see [Server.Relay].
func (s *Server) Park(ctx context.Context) []Parked {
	s.roster.setParking(true)
	for _, ln := range s.allListeners() {
		ln.pause()
		ln.settle()
	}
	s.gate.park(true)
	for _, c := range s.roster.all() {
		c.beginParking()
	}
	return s.roster.settle(ctx)
}

// ParkNext waits, after Park, for connections whose answers end, and takes them; none when all have ended, or
// ctx.
func (s *Server) ParkNext(ctx context.Context) []Parked { return s.roster.next(ctx) }

// Adopt serves a connection that was carried over while this server serves already.
func (s *Server) Adopt(p Parked) {
	if p.Parted {
		s.partings.Go(func() { awaitClose(p.Conn) })
		return
	}
	_ = p.Conn.SetDeadline(time.Time{})
	if ln := s.listenerFor(p.Local); ln != nil {
		ln.inject(p)
	} else {
		_ = p.Conn.Close()
	}
}

// awaitClose lets the client of a WebSocket that was closed here close it too. Closed at once, with the client's last
// frames unread, it would be reset, and the client might never see why.
func awaitClose(nc net.Conn) {
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(refuseTime))
	if half, ok := nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, nc)
	}
}

// Refuse answers carried connections that nobody will serve: 503 to those whose request was read.
func (s *Server) Refuse(carried []Parked) {
	var answers sync.WaitGroup
	for _, p := range append(carried, s.roster.endParking()...) {
		answers.Go(func() { refuse(p) })
	}
	answers.Wait()
}

// refuse writes the answer by hand: net/http serves no new connection once it shuts down.
func refuse(p Parked) {
	defer func() { _ = p.Conn.Close() }()
	if p.Parted {
		awaitClose(p.Conn)
		return
	}
	if len(p.Read) == 0 {
		return
	}
	sayGoodbye(p.Conn, "gateway_stopping", "the gateway stops; the request was not carried out, or its turn is kept. Try: again in a moment, with the same Idempotency-Key")
}

// sayGoodbye answers 503 without reading, and closes the connection.
func sayGoodbye(nc net.Conn, code, message string) {
	defer func() { _ = nc.Close() }()
	body := fmt.Sprintf(`{"error":{"message":%q,"type":%q,"code":%q,"param":null}}`, message, api.TypeServer, code)
	_ = nc.SetDeadline(time.Now().Add(refuseTime))
	_, err := fmt.Fprintf(nc, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: 2\r\nConnection: close\r\n\r\n%s", len(body), body)
	if half, ok := nc.(interface{ CloseWrite() error }); ok && err == nil && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, nc) // unread bytes would turn the close into a reset that takes the answer with it
	}
}

// Close stops serving: what is held is refused, answers that are under way have until ctx ends, then every connection is
// closed.
func (s *Server) Close(ctx context.Context) error {
	s.gate.close()
	s.http.SetKeepAlivesEnabled(false)
	for _, c := range s.roster.all() { // net/http waits five seconds for a first request
		if c.untouched() {
			_ = c.Close()
		}
	}
	s.hub.Close(ctx)  // net/http does not know of them any more
	s.partings.Wait() // a moment each
	err := s.http.Shutdown(ctx)
	if err != nil && ctx.Err() != nil {
		err = s.http.Close() // what is cut here was told to end and did not
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("server: closing: %w", err)
	}
	return nil
}

// complaints are what net/http says of connections. What any stranger can cause is no matter for a log.
type complaints struct{ log zerolog.Logger }

// Write implements io.Writer.
func (c complaints) Write(p []byte) (int, error) {
	level := zerolog.WarnLevel
	if bytes.HasPrefix(p, []byte("http: TLS handshake error")) {
		level = zerolog.DebugLevel
	}
	c.log.WithLevel(level).Msg(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// forget drops a listener that serves no more.
func (s *Server) forget(ln *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = slices.DeleteFunc(s.listeners, func(l *listener) bool { return l == ln })
}

func (s *Server) allListeners() []*listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*listener(nil), s.listeners...)
}

// listenerFor finds where a carried connection belongs: the newest listener of its kind. Nil when there is
// none, because the server was closed.
func (s *Server) listenerFor(local bool) *listener {
	all := s.allListeners()
	for _, ln := range slices.Backward(all) {
		if ln.local == local {
			return ln
		}
	}
	return nil
}

// handler is the whole of the HTTP surface.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	routes, needs := s.routes(), make(map[string]api.Scope)
	for pattern, route := range routes.gated {
		needs[pattern] = route.needs
		mux.HandleFunc(pattern, s.gated(route.serve))
	}
	for pattern, route := range routes.always {
		needs[pattern] = route.needs
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			out := &watched{ResponseWriter: w}
			if err := route.serve(out, r); err != nil && !out.wrote {
				if c := connOf(r.Context()); c != nil && c.isParking() { // parking cut the request short
					s.carry(w, r, c, "")
					return
				}
				s.writeError(w, r, err)
			}
		})
	}
	return s.serving(s.recovering(s.guarded(mux, needs)))
}

// serving marks the connection as being answered for as long as a handler runs.
func (s *Server) serving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := connOf(r.Context()); c != nil {
			c.begin()
			if !c.local && s.certificate.Load() != nil { // it is of a time before TLS was turned on
				w.Header().Set("Connection", "close")
			}
		}
		if !trusted(r.Context()) && r.Body != http.NoBody {
			body := s.newPatient(w, r.Body)
			defer body.release()
			r.Body = body
		}
		if !s.relayed(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// recovering answers 500 when a handler panics, and logs the stack.
func (s *Server) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &watched{ResponseWriter: w}
		defer func() { s.answers.count(out.status) }()
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // a sentinel that is panicked with, never wrapped
				panic(p)
			}
			s.opts.Log.Error().Interface("panic", p).Str("path", r.URL.Path).Stack().Msg("a handler panicked; please report it")
			if !out.wrote {
				s.writeError(out, r, errors.New("server: internal error"))
			}
		}()
		next.ServeHTTP(out, r)
	})
}
