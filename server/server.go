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
	"encoding/json"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"gateway/server/api"
	"gateway/server/carry"
	"gateway/server/openai"
	"gateway/server/openclaw"
)

const (
	readHeaderTimeout = 30 * time.Second
	idleTimeout       = 5 * time.Minute
	maxHeaderBytes    = 64 << 10
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
	ingress     *carry.Ingress
	hub         *openclaw.Hub
	feed        *overview

	meter   *meter
	bodies  atomic.Int64 // bytes of requests' bodies that are in memory
	answers answers

	certificate atomic.Pointer[tls.Certificate] // nil for no TLS
	relay       atomic.Pointer[httputil.ReverseProxy]

	retirement *api.Retirement
	openAI     *openai.Endpoints
}

// New returns a server that serves nothing yet.
func New(opts Options) *Server {
	s := &Server{opts: opts, crossOrigin: http.NewCrossOriginProtection(), retirement: api.NewRetirement()}
	s.openAI = openai.New(s.retirement, opts.Log)
	s.hub = openclaw.New(openclaw.Options{Lifecycle: opts.Lifecycle, Version: opts.Version, Retirement: s.retirement, Log: opts.Log})
	s.gate = newGate(opts.Lifecycle, func() bool { return s.relay.Load() != nil })
	s.feed = newOverview(opts.Lifecycle, func() *api.Backend { b, _, _, _ := s.gate.look(); return b }, opts.Log)
	s.meter = newMeter()
	s.ingress = carry.NewIngress(carry.Options{
		TLS: s.newTLS(), Secure: func() bool { return s.certificate.Load() != nil }, IdleTimeout: idleTimeout,
		TooMany: func(limit string) string {
			return refusal("too_many_connections", "too many connections are open. Try: fewer at once, or raise "+limit)
		},
		Stopping: refusal("gateway_stopping", "the gateway is stopping; the request was not processed, or its turn is kept. Try: again in a moment, with the same Idempotency-Key"),
		Crowded: func(limit string) {
			opts.Log.Warn().Str("limit", limit).Msg("connections are refused: too many are open. Try: raise " + limit + ", or see who opens them with: ss -tn")
		},
		Impossible: func(p carry.Phase, o carry.Occurrence) {
			opts.Log.Error().Stringer("phase", p).Stringer("occurrence", o).Msg("a connection met an impossible occurrence; please report it")
		},
	})
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			c := carry.Under(nc)
			if c == nil {
				return ctx
			}
			if c.Local {
				ctx = withTrusted(ctx)
			}
			return carry.With(ctx, c)
		},
		ConnState: s.ingress.ConnState,
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: api.WriteTimeout, SendPingTimeout: idleTimeout / 2},
		ErrorLog:  stdlog.New(complaints{opts.Log.With().Str("from", "net/http").Logger()}, "", 0),
	}
	return s
}

// Listen prepares to serve a TCP or Unix listener. Connections wait in the kernel until Resume. The
// returned function serves until Close or until the listener fails; nil means that it was closed.
func (s *Server) Listen(inner net.Listener, local bool) (serve func() error, err error) {
	ln, err := s.ingress.Listen(inner, local)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return func() error {
		defer s.ingress.Forget(ln)
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
	s.ingress.Limit(b.Limits.Connections, b.Limits.PerAddress)
	s.meter.set(b.Limits.Rate, b.Limits.Burst)
	s.gate.carry(false)
	s.gate.publish(b)
}

// Resume accepts connections, the carried ones first: those of the process before this one, or those that Carry took in
// vain.
func (s *Server) Resume(carried []carry.Connection) { s.ingress.Resume(carried) }

// Retire tells the open streams to end. Requests that wait for a turn go back to the gate once their
// queue is closed.
func (s *Server) Retire(n api.Notice) {
	s.retirement.Begin(n)
	s.hub.Retire()
}

// Carry stops accepting and takes every connection that is not being answered from net/http: idle ones,
// ones whose request is arriving, and ones whose request waits at the gate. Connections that are being
// answered have until ctx ends, and those that speak TLS stay; see [Server.Relay].
func (s *Server) Carry(ctx context.Context) []carry.Connection {
	return s.ingress.Carry(ctx, func() { s.gate.carry(true) })
}

// CarryNext waits, after Carry, for connections whose answers end, and takes them; none when all have ended, or
// ctx.
func (s *Server) CarryNext(ctx context.Context) []carry.Connection { return s.ingress.Next(ctx) }

// Adopt serves a connection that was carried here while this server serves already.
func (s *Server) Adopt(c carry.Connection) { s.ingress.Adopt(c) }

// Refuse answers carried connections that nobody will serve: 503 to those whose request was read.
func (s *Server) Refuse(carried []carry.Connection) { s.ingress.Refuse(carried) }

// refusal is the document of a 503 that is written without net/http.
func refusal(code, message string) string {
	b, _ := json.Marshal(api.Unavailable(code, message, nil).Document()) //nolint:errchkjson // strings and nothing else
	return string(b)
}

// Close stops serving: what is held is refused, answers that are under way have until ctx ends, then every connection is
// closed.
func (s *Server) Close(ctx context.Context) error {
	s.gate.close()
	s.http.SetKeepAlivesEnabled(false)
	s.ingress.CloseUntouched()
	s.hub.Close(ctx) // net/http does not know of them any more
	s.ingress.AwaitClosing()
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
				if c := carry.Of(r.Context()); c != nil && c.IsCarrying() { // which cut the request short
					s.giveUp(w, r, c, "")
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
		if c := carry.Of(r.Context()); c != nil {
			c.Begin()
			if !c.Local && s.certificate.Load() != nil { // it is of a time before TLS was turned on
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
