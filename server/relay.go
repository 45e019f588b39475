package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"gateway/server/api"
	"gateway/server/carry"
)

// A TLS connection has a state that only this process knows, so it cannot be carried over. Instead this process
// keeps it until its requests are answered, by the successor: those that waited at the gate, and those that
// come until the client has been told to connect again.

const (
	// lingerTime is how long a TLS connection may stay idle before it is closed; one that asks in time learns
	// with its answer that it must connect again, so it loses nothing.
	lingerTime = time.Second
	// relayedFor names whose request comes over the control socket. Such a request is trusted no more than over
	// the port.
	relayedFor = "Gateway-Relayed-For"
	// maxStreams is how many requests of an HTTP/2 connection are served at once.
	maxStreams = 100
)

var errRelayed = errors.New("server: the successor answers")

// newTLS is what clients are offered. The certificate is that of the generation which serves when they connect.
func (s *Server) newTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := s.certificate.Load(); c != nil {
				return c, nil
			}
			return nil, errors.New("server: TLS was turned off")
		},
	}
}

// Relay has the requests of TLS connections answered by whoever dial reaches: the control socket of the
// successor. It cannot be taken back.
func (s *Server) Relay(dial func(context.Context) (net.Conn, error)) {
	s.relay.Store(&httputil.ReverseProxy{
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "gateway"
			r.Out.Header.Set(relayedFor, r.In.RemoteAddr)
		},
		FlushInterval: -1,
		ErrorLog:      s.http.ErrorLog,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if _, known := errors.AsType[*api.Error](err); !known { // such as a body that was too slow
				err = api.Unavailable("gateway_restarting", "the gateway is restarting; accepted turns are kept. Try: again, with the same Idempotency-Key", err)
			}
			s.writeError(w, r, err)
		},
	})
	s.gate.wake()
}

// relayed lets the successor answer, and reports whether it did. Only connections that cannot be carried over
// are here for that.
func (s *Server) relayed(w http.ResponseWriter, r *http.Request) bool {
	relay := s.relay.Load()
	if relay == nil || !carry.IsTLS(r.Context()) {
		return false
	}
	w.Header().Set("Connection", "close") // with HTTP/2 it becomes a GOAWAY
	if isUpgrade(r) {                     // it would stay for as long as it likes
		s.writeError(w, r, api.Unavailable("gateway_restarting", "the gateway restarts. Try: connect again", nil))
		return true
	}
	relay.ServeHTTP(w, r)
	return true
}

// Sealed is how many connections cannot be carried over and are open.
func (s *Server) Sealed() int { return s.ingress.Sealed() }

// Leave ends the connections that could not be carried over, once Relay answers them: idle ones after a moment,
// the others with their answers, or with ctx.
func (s *Server) Leave(ctx context.Context) error {
	idle, cancel := context.WithTimeout(ctx, lingerTime)
	s.ingress.Ended(idle)
	cancel()
	err := s.http.Shutdown(ctx)
	if err != nil && ctx.Err() != nil {
		err = s.http.Close()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("server: leaving: %w", err)
	}
	return nil
}
