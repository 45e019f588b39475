package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/server/api"

	"gateway/server/carry"
)

// pipes is a listener of connections in memory, whose time is that of a synctest bubble.
type pipes struct {
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once

	mu   sync.Mutex
	late chan struct{} // closed when the deadline has passed
}

func newPipes() *pipes {
	return &pipes{incoming: make(chan net.Conn), closed: make(chan struct{}), late: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	p.mu.Lock()
	late := p.late
	p.mu.Unlock()
	select {
	case c := <-p.incoming:
		return c, nil
	case <-late:
		return nil, os.ErrDeadlineExceeded
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) SetDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.IsZero() {
		p.late = make(chan struct{})
		return nil
	}
	select {
	case <-p.late:
	default:
		close(p.late)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.incoming <- theirs
	return ours
}

// inBubble runs f on a server whose one endpoint returns the length of what it was sent.
func inBubble(t *testing.T, f func(s *Server, p *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Lifecycle: newStage(fsm.Open), Log: zerolog.Nop()})
		s.http.Handler = s.serving(s.gated(func(w http.ResponseWriter, r *http.Request, _ *api.Backend) error {
			n, err := io.Copy(io.Discard, r.Body)
			return errors.Join(err, api.Reply(w, http.StatusOK, n))
		}))
		s.Publish(&api.Backend{MaxInput: 1 << 20})
		p := newPipes()
		serve, err := s.Listen(p, false)
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { served <- serve() }()
		s.Resume(nil)
		f(s, p)
		require.NoError(t, s.Close(t.Context()))
		require.NoError(t, <-served)
		require.Zero(t, s.bodies.Load(), "what was counted is given back")
	})
}

// drip sends a text a byte a second until the other side has enough, and returns how long that took.
func drip(c net.Conn, head, text string) time.Duration {
	began := time.Now()
	if _, err := io.WriteString(c, head); err != nil {
		return time.Since(began)
	}
	for i := range text {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			break
		}
		time.Sleep(time.Second) // of the bubble
	}
	return time.Since(began)
}

func TestASlowHeadIsCutOff(t *testing.T) {
	inBubble(t, func(_ *Server, p *pipes) {
		c := p.dial()
		go func() { _, _ = io.Copy(io.Discard, c) }()
		took := drip(c, "", "GET / HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 1000))
		require.InDelta(t, readHeaderTimeout.Seconds(), took.Seconds(), 2)
		require.NoError(t, c.Close())
	})
}

func TestASlowBodyIsCutOff(t *testing.T) {
	inBubble(t, func(_ *Server, p *pipes) {
		c := p.dial()
		answers := make(chan string, 1)
		go func() {
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				answers <- err.Error()
				return
			}
			b, _ := io.ReadAll(resp.Body)
			answers <- resp.Status + string(b)
			_ = resp.Body.Close()
			_ = c.Close()
		}()
		took := drip(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("x", 1000))
		require.InDelta(t, bodyTime.Seconds(), took.Seconds(), 2)
		require.Contains(t, <-answers, "408 Request Timeout{\"error\":{\"message\":\"the request's body took longer than 30s for 512 KiB")
	})
}

// Who is refused before the body is read is not waited for either.
func TestASlowBodyThatNobodyReadsIsCutOff(t *testing.T) {
	inBubble(t, func(s *Server, p *pipes) {
		s.http.Handler = s.serving(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.writeError(w, r, errRefused) }))
		c := p.dial()
		go func() { _, _ = io.Copy(io.Discard, c) }()
		took := drip(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("x", 1000))
		require.InDelta(t, bodyTime.Seconds(), took.Seconds(), 2)
		require.NoError(t, c.Close())
	})
}

func TestABodyThatKeepsComingHasItsTime(t *testing.T) {
	inBubble(t, func(_ *Server, p *pipes) {
		c := p.dial()
		const blocks, size = 60, 64 << 10 // twice the time of a body without bytes
		go func() {
			_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", blocks*size)
			for range blocks {
				if _, err := c.Write(make([]byte, size)); err != nil {
					return
				}
				time.Sleep(time.Second) // of the bubble
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, strconv.Itoa(blocks*size)+"\n", string(b))
		time.Sleep(2 * bodyTime) // of the bubble; the body's deadline has not stayed behind
		go func() { _, _ = io.WriteString(c, get("/")) }()
		resp, err = http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
		require.NoError(t, c.Close())
	})
}

func TestBodiesTogetherHaveALimit(t *testing.T) {
	g := newGateway(t)
	g.bodies.Add(maxBodies)
	large := `{"input":"hello"` + strings.Repeat(" ", smallBody) + "}"
	status, _, _ := g.do("POST", "/v1/responses", `{"input":"hello"}`)
	require.Equal(t, http.StatusOK, status, "small ones do not count")
	status, header, body := g.do("POST", "/v1/responses", large)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "1", header.Get("Retry-After"))
	require.Contains(t, body, `"code":"too_much_at_once"`)
	g.bodies.Add(-maxBodies)
	status, _, _ = g.do("POST", "/v1/responses", large)
	require.Equal(t, http.StatusOK, status)
	waitFor(t, func() bool { return g.bodies.Load() == 0 })
}

func TestALargeBodyIsRefusedBeforeItComes(t *testing.T) {
	g := newGateway(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(c, "POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
}

func TestConnectionsHaveALimit(t *testing.T) {
	g := newGateway(t)
	address := strings.TrimPrefix(g.url, "http://")
	open := func() net.Conn {
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		return c
	}
	for limits, says := range map[api.Limits]string{
		{Connections: 3}:                  "limits.connections",
		{Connections: 100, PerAddress: 3}: "limits.connections_per_address",
	} {
		g.ingress.Limit(limits.Connections, limits.PerAddress)
		var conns []net.Conn
		for i := range 3 {
			conns = append(conns, open())
			waitFor(t, func() bool { return g.Stats().Connections == i+1 })
		}
		resp, err := http.ReadResponse(bufio.NewReader(open()), nil)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		require.Equal(t, "2", resp.Header.Get("Retry-After"))
		require.Contains(t, string(body), "raise "+says+`","type":"server_error","code":"too_many_connections"`)
		require.EqualValues(t, 1, g.Stats().SentAway[says])

		_, err = io.WriteString(conns[0], get("/healthz"))
		require.NoError(t, err)
		resp, err = http.ReadResponse(bufio.NewReader(conns[0]), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, "those that are open go on")
		require.NoError(t, resp.Body.Close())
		for _, c := range conns {
			require.NoError(t, c.Close())
		}
		waitFor(t, func() bool { return g.Stats().Connections == 0 })
	}
	g.ingress.Limit(0, 0)
}

func TestAnAddressIsANetwork(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1/32", "[::ffff:192.0.2.1]:5": "192.0.2.1/32", "[2001:db8:1:2:3:4:5:6]:7": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1": "fe80::/64",
	} {
		require.Equal(t, netip.MustParsePrefix(want), carry.Network(address))
	}
	require.False(t, carry.Network("@").IsValid())
}

func TestAClientHasARate(t *testing.T) {
	g := newGateway(t)
	b := *g.backend
	b.Limits = api.Limits{Rate: 1, Burst: 2}
	const token = "a good token"
	b.Callers = tokenOf(token)
	g.Publish(&b)
	ask := func(path, token string) (int, http.Header, string) {
		return g.do("GET", path, "", "Authorization", "Bearer "+token)
	}
	for range 2 {
		status, _, _ := ask("/v1/models", token)
		require.Equal(t, http.StatusOK, status)
	}
	status, header, body := ask("/v1/models", token)
	require.Equal(t, http.StatusTooManyRequests, status)
	require.Equal(t, "1", header.Get("Retry-After"))
	require.Empty(t, header.Get("X-Should-Retry"))
	document := decode(t, body)["error"].(map[string]any)
	require.Equal(t, "rate_limit_error", document["type"])
	require.Equal(t, "rate_limit_exceeded", document["code"])
	require.Contains(t, document["message"], "Try: again in 1 s")

	for _, want := range []int{http.StatusUnauthorized, http.StatusUnauthorized, http.StatusTooManyRequests} {
		status, _, _ = ask("/v1/models", "guessed")
		require.Equal(t, want, status, "who guesses has a rate of its own")
	}
	for range 10 {
		status, _, _ = ask("/healthz", "")
		require.Equal(t, http.StatusOK, status, "probes do not count")
	}
	b.Limits = api.Limits{}
	g.Publish(&b)
	status, _, _ = ask("/v1/models", token)
	require.Equal(t, http.StatusOK, status, "off")
}

func TestTheRatesOfManyClientsAreBounded(t *testing.T) {
	m, now := newMeter(), time.Unix(0, 0)
	require.Zero(t, m.reserve(asker{}, now), "off")
	m.set(10, 1)
	from := func(i int) asker {
		return asker{carry.Network(fmt.Sprintf("10.%d.%d.%d:1", i>>16&255, i>>8&255, i&255)), false, ""}
	}
	require.Zero(t, m.reserve(from(0), now))
	require.Equal(t, 100*time.Millisecond, m.reserve(from(0), now))
	require.Equal(t, 100*time.Millisecond, m.reserve(from(0), now), "what was refused does not count")
	require.Zero(t, m.reserve(from(0), now.Add(100*time.Millisecond)))
	for i := range 2 * maxClients {
		m.reserve(from(i+1), now)
		if i%1000 == 0 {
			m.reserve(from(0), now)
		}
	}
	require.Len(t, m.clients, maxClients)
	require.Equal(t, maxClients, m.recent.Len())
	require.Positive(t, m.reserve(from(0), now), "who asks all the time is not forgotten")
	require.Zero(t, m.reserve(from(1), now), "who asked long ago is")
	m.set(10, 1)
	require.Len(t, m.clients, maxClients, "unchanged")
	m.set(10, 2)
	require.Empty(t, m.clients)
}

// The header by which a predecessor hands on a request takes trust away, and gives none.
func TestARelayedRequestIsTrustedNoMoreThanOthers(t *testing.T) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/models", nil)
	require.NoError(t, err)
	r.RemoteAddr = "192.0.2.1:5"
	r.Header.Set(relayedFor, "192.0.2.2:6")
	outside := relayedRequest(r)
	require.Empty(t, outside.Header.Get(relayedFor))
	require.Equal(t, "192.0.2.1:5", outside.RemoteAddr)
	require.False(t, trusted(outside.Context()))
	require.False(t, overControlSocket(outside.Context()))

	local := r.WithContext(withTrusted(t.Context()))
	require.True(t, trusted(relayedRequest(local).Context()))
	local.Header.Set(relayedFor, "192.0.2.2:6")
	relayed := relayedRequest(local)
	require.False(t, trusted(relayed.Context()))
	require.True(t, overControlSocket(relayed.Context()))
	require.Equal(t, "192.0.2.2:6", relayed.RemoteAddr)
	_, err = authorize(relayed, &api.Backend{Callers: tokenOf("a good token")}, http.NewCrossOriginProtection())
	require.Error(t, err)
}
