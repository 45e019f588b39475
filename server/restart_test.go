package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/queue"
	"gateway/server/api"
	"gateway/server/carry"
)

// stage is a lifecycle whose admission a test sets.
type stage struct {
	Lifecycle
	mu        sync.Mutex
	admission fsm.Admission
	changed   chan struct{}
}

func newStage(a fsm.Admission) *stage { return &stage{admission: a, changed: make(chan struct{})} }

func (l *stage) set(a fsm.Admission) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.admission = a
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *stage) Admission() (fsm.Admission, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.admission, l.changed
}

// image is a process image: a server on a copy of the shared listener, whose one endpoint answers with the
// image's name, the key and the body.
type image struct {
	*Server
	name    string
	ingress *ingress
	stage   *stage
	served  chan error
}

// Carry carries the image's connections away, once no answer is on the way.
func (i *image) Carry(ctx context.Context) []carry.Connection {
	i.ingress.each(i.name, "carrying begins")
	return i.took(i.Server.Carry(ctx))
}

func (i *image) took(carried []carry.Connection) []carry.Connection {
	for _, p := range carried {
		i.ingress.carried(p.Conn.RemoteAddr().String(), i.name, p.TLS, p.CloseSent, p.Unanswered)
	}
	return carried
}

// Resume serves, and goes on with what was carried here.
func (i *image) Resume(carried []carry.Connection) {
	for _, p := range carried {
		i.ingress.owned(p.Conn.RemoteAddr().String(), i.name, "served again")
	}
	i.Server.Resume(carried)
}

func newImage(t *testing.T, name string, ln *ingress, h api.Handler) *image {
	t.Helper()
	f, err := ln.File()
	require.NoError(t, err)
	shared, err := net.FileListener(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	i := &image{name: name, ingress: ln, stage: newStage(fsm.Open), served: make(chan error, 1)}
	i.Server = New(Options{Lifecycle: i.stage, Log: zerolog.Nop()})
	if h == nil {
		h = func(w http.ResponseWriter, r *http.Request, _ *api.Backend) error {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(w, "%s %s %s", name, r.URL.Path, body)
			return err
		}
	}
	i.http.Handler = ln.handler(name, i.serving(i.gated(h)))
	i.http.ConnState = ln.state(name, i.http.ConnState)
	i.Publish(&api.Backend{MaxInput: 1 << 20})
	serve, err := i.Listen(recorded{shared.(*net.TCPListener), ln, name}, false)
	require.NoError(t, err)
	go func() { i.served <- serve() }()
	t.Cleanup(func() {
		require.NoError(t, i.Close(context.Background()))
		require.NoError(t, <-i.served)
	})
	return i
}

type client struct {
	net.Conn
	t       *testing.T
	r       *bufio.Reader
	ingress *ingress
}

func dial(t *testing.T, ln *ingress) *client {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	ln.dialled(c.LocalAddr())
	return &client{c, t, bufio.NewReader(c), ln}
}

func (c *client) send(s string) {
	c.t.Helper()
	_, err := io.WriteString(c, s)
	require.NoError(c.t, err)
}

func (c *client) receive() string {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(c.t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	require.NoError(c.t, resp.Body.Close())
	c.ingress.rest(c.LocalAddr().String())
	return string(body)
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n" }

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func TestNoConnectionIsLostWhenTheImageIsReplaced(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	old := newImage(t, "old", ln, nil)
	old.Resume(nil)

	idle, fresh, head, body, held, chunked, pipelined, behind := dial(t, ln), dial(t, ln), dial(t, ln), dial(t, ln), dial(t, ln), dial(t, ln), dial(t, ln), dial(t, ln)
	for _, c := range []*client{idle, head, body, held, chunked, pipelined, behind} { // kept-alive connections
		c.send(get("/first"))
		require.Equal(t, "old /first ", c.receive())
	}
	waitFor(t, func() bool { return old.Stats().Connections == 8 })

	before := len(get("/first"))
	old.stage.set(fsm.Held)
	head.send("GET /he")
	body.send("POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n01234")
	chunked.send("POST /chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n")
	held.send(post("/held", "question"))
	pipelined.send(post("/one", "1") + post("/two", "2") + get("/three"))
	behind.send(post("/one", "1") + "GET /tw")
	waitFor(t, func() bool { return old.gate.held.Load() == 3 })
	ln.came(head, before+len("GET /he"))
	ln.came(body, before+len("POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n01234"))
	ln.came(chunked, before+len("POST /chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n"))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	carried := old.Carry(ctx)
	require.NoError(t, ctx.Err(), "all were carried, none was waited for")
	require.Len(t, carried, 8)
	late := dial(t, ln) // waits in the kernel
	late.send(get("/late"))
	require.NoError(t, old.Close(t.Context()))

	next := newImage(t, "new", ln, nil)
	next.Resume(carried)
	fresh.send(get("/fresh"))
	idle.send(get("/second"))
	head.send("ad HTTP/1.1\r\nHost: localhost\r\n\r\n")
	body.send("56789")
	chunked.send("5\r\n56789\r\n0\r\n\r\n")
	require.Equal(t, "new /one 1", behind.receive())
	behind.send("o HTTP/1.1\r\nHost: localhost\r\n\r\n")
	for c, want := range map[*client][]string{
		fresh: {"new /fresh "}, idle: {"new /second "}, head: {"new /head "}, body: {"new /body 0123456789"},
		chunked: {"new /chunked 0123456789"}, held: {"new /held question"},
		pipelined: {"new /one 1", "new /two 2", "new /three "}, behind: {"new /two "}, late: {"new /late "},
	} {
		for _, answer := range want {
			t.Log("waiting for", answer)
			require.Equal(t, answer, c.receive())
		}
	}
}

func TestARequestHasOneKeyHoweverOftenItIsReplayed(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	var mu sync.Mutex
	keys := make(map[string]int)
	closing := func(w http.ResponseWriter, r *http.Request, _ *api.Backend) error {
		mu.Lock()
		defer mu.Unlock()
		keys[r.Header.Get(api.IdempotencyHeader)]++
		return fmt.Errorf("waiting for the turn: %w", queue.ErrClosed)
	}
	old := newImage(t, "old", ln, closing)
	old.Resume(nil)
	c := dial(t, ln)
	c.send(post("/turn", "hello"))
	waitFor(t, func() bool { return old.gate.held.Load() == 1 })
	old.Publish(&api.Backend{MaxInput: 1 << 20}) // a restart in place: the same request again
	waitFor(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(keys) == 1 && old.gate.held.Load() == 1 })
	carried := old.Carry(t.Context())
	require.Len(t, carried, 1)
	next := newImage(t, "new", ln, func(w http.ResponseWriter, r *http.Request, _ *api.Backend) error {
		mu.Lock()
		defer mu.Unlock()
		keys[r.Header.Get(api.IdempotencyHeader)]++
		_, err := io.WriteString(w, "done")
		return err
	})
	next.Resume(carried)
	require.Equal(t, "done", c.receive())
	require.Len(t, keys, 1)
	for key, runs := range keys {
		require.True(t, strings.HasPrefix(key, "auto-"))
		require.GreaterOrEqual(t, runs, 2)
	}
}

func TestAStopRefusesWhatIsHeldAndSaysSo(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "old", ln, nil)
	s.Resume(nil)
	s.stage.set(fsm.Held)
	c := dial(t, ln)
	c.send(get("/held"))
	waitFor(t, func() bool { return s.gate.held.Load() == 1 })
	s.stage.set(fsm.Refused)
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
}

func TestAConnectionThatItsClientClosedIsNotCarriedOver(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "old", ln, nil)
	s.Resume(nil)
	c := dial(t, ln)
	c.send(get("/first"))
	c.receive()
	require.NoError(t, c.Close())
	waitFor(t, func() bool { return s.Stats().Connections == 0 })
	require.Empty(t, s.Carry(t.Context()))
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, time.Minute, time.Millisecond)
}

func TestCarryingThatWasInVainLosesNothing(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	finish := make(chan struct{})
	begun := make(chan struct{}, 1)
	s := newImage(t, "same", ln, func(w http.ResponseWriter, r *http.Request, _ *api.Backend) error {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-finish
		}
		_, err := io.WriteString(w, r.URL.Path)
		return err
	})
	s.Resume(nil)
	idle, busy := dial(t, ln), dial(t, ln)
	idle.send(get("/first"))
	require.Equal(t, "/first", idle.receive())
	busy.send(get("/slow"))
	<-begun
	waitFor(t, func() bool { return s.Stats().Connections == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	carried := s.Carry(ctx) // the new image could not be started
	require.Len(t, carried, 1)
	s.Publish(&api.Backend{MaxInput: 1 << 20})
	s.Resume(carried)
	close(finish)
	require.Equal(t, "/slow", busy.receive())
	for _, c := range []*client{idle, busy} {
		c.send(get("/again"))
		require.Equal(t, "/again", c.receive())
	}
}

func TestClosingRefusesWhatIsHeldWhateverTheStateSays(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "old", ln, nil)
	s.Resume(nil)
	s.stage.set(fsm.Held)
	c := dial(t, ln)
	c.send(get("/held"))
	waitFor(t, func() bool { return s.gate.held.Load() == 1 })
	require.NoError(t, s.Close(t.Context()))
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
}

func TestAStrayLineEndDoesNotReplayAnAnsweredRequest(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	old := newImage(t, "old", ln, nil)
	old.Resume(nil)
	c := dial(t, ln)
	c.send(post("/one", "1") + "\r\n" + post("/two", "2"))
	require.Equal(t, "old /one 1", c.receive())
	require.Equal(t, "old /two 2", c.receive())
	carried := old.Carry(t.Context())
	require.Len(t, carried, 1)
	require.Empty(t, carried[0].Unanswered, "all that was read is answered")
	next := newImage(t, "new", ln, nil)
	next.Resume(carried)
	c.send(get("/three"))
	require.Equal(t, "new /three ", c.receive())
}

func TestALineEndBehindARequestDoesNotSpoilTheOneThatIsCarriedOver(t *testing.T) {
	for when, parts := range map[string][2]string{
		"before the restart, with the next request": {"\r\n" + post("/two", "2"), ""},
		"before the restart":                        {"\r\n", post("/two", "2")},
		"in two parts":                              {"\r", "\n" + post("/two", "2")},
		"while nobody serves":                       {"", "\r\n" + post("/two", "2")},
	} {
		before, after := parts[0], parts[1]
		t.Run(when, func(t *testing.T) {
			ln := newIngress(t)
			defer ln.compare()
			old := newImage(t, "old", ln, nil)
			old.Resume(nil)
			c := dial(t, ln)
			c.send(post("/one", "1"))
			require.Equal(t, "old /one 1", c.receive())
			old.stage.set(fsm.Held)
			c.send(before)
			ln.came(c, len(post("/one", "1")+before))
			waitFor(t, func() bool { return old.gate.held.Load() == 1 || !strings.HasSuffix(before, "2") })
			carried := old.Carry(t.Context())
			require.Len(t, carried, 1)
			next := newImage(t, "new", ln, nil)
			c.send(after)
			next.Resume(carried)
			require.Equal(t, "new /two 2", c.receive())
		})
	}
}

// net/http reads ahead, so what comes behind a request that is too large to be kept is not known either.
func TestNothingIsCarriedOverFromBehindARequestThatWasTooLargeToKeep(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	old := newImage(t, "old", ln, func(w http.ResponseWriter, r *http.Request, _ *api.Backend) error {
		_, err := io.WriteString(w, "old "+r.URL.Path)
		return err
	})
	old.Resume(nil)
	c := dial(t, ln)
	const chunk = "1;padding.....\r\nx\r\n" // most of it is no body
	const head = "POST /large HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
	c.send(head)
	ln.came(c, len(head))
	c.send(strings.Repeat(chunk, carry.ReplayLimit/len(chunk)+1))
	inner := post("/inner", "which is only a body")
	c.send("0\r\n\r\n" + fmt.Sprintf("POST /outer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", 2*len(inner)))
	require.Equal(t, "old /large", c.receive())
	_, _ = io.WriteString(c, inner) // which may find nobody
	carried := old.Carry(t.Context())
	require.Empty(t, carried)
	_, err := http.ReadResponse(c.r, nil) //nolint:bodyclose // there is none
	require.Error(t, err, "there is no further answer on this connection")
}

func TestARequestThatIsTooLargeToBeCarriedOverIsToldSo(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	old := newImage(t, "old", ln, nil)
	old.Resume(nil)
	old.stage.set(fsm.Held)
	c := dial(t, ln)
	const chunk = "1;padding.....\r\nx\r\n" // most of it is no body
	const head = "POST /large HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
	c.send(head)
	ln.came(c, len(head))
	c.send(strings.Repeat(chunk, carry.ReplayLimit/len(chunk)+1) + "0\r\n\r\n")
	waitFor(t, func() bool { return old.gate.held.Load() == 1 })
	require.Empty(t, old.Carry(t.Context()))
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
	require.True(t, resp.Close)
}

func TestCarriedRequestsThatNobodyWillServeAreRefused(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "old", ln, nil)
	s.Resume(nil)
	s.stage.set(fsm.Held)
	var clients []*client
	for range 20 {
		c := dial(t, ln)
		c.send(post("/held", strings.Repeat("x", 100_000)))
		clients = append(clients, c)
	}
	idle := dial(t, ln)
	waitFor(t, func() bool { return s.gate.held.Load() == 20 && s.Stats().Connections == 21 })
	carried := s.Carry(t.Context())
	require.Len(t, carried, 21)
	s.Refuse(carried)
	require.NoError(t, s.Close(t.Context()))
	for _, c := range clients {
		resp, err := http.ReadResponse(c.r, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		require.Equal(t, "2", resp.Header.Get("Retry-After"))
		require.NoError(t, resp.Body.Close())
	}
	_, err := idle.r.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

// slowAccept hands a connection on only when told to.
type slowAccept struct {
	*net.TCPListener
	accepted chan struct{}
	hand     chan struct{}
	paused   chan struct{}
}

func (l *slowAccept) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		select {
		case l.paused <- struct{}{}:
		default:
		}
	}
	return l.TCPListener.SetDeadline(t)
}

func (l *slowAccept) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err == nil {
		l.accepted <- struct{}{}
		<-l.hand
	}
	return c, err
}

func TestAConnectionThatIsBeingAcceptedIsCarriedToo(t *testing.T) {
	ln := newIngress(t)
	slow := &slowAccept{ln.TCPListener, make(chan struct{}, 1), make(chan struct{}), make(chan struct{}, 1)}
	s := New(Options{Lifecycle: newStage(fsm.Open), Log: zerolog.Nop()})
	serve, err := s.Listen(slow, false)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- serve() }()
	s.Resume(nil)
	c := dial(t, ln)
	<-slow.accepted
	<-slow.paused // before it served
	taken := make(chan []carry.Connection, 1)
	go func() { taken <- s.Carry(t.Context()) }()
	<-slow.paused
	close(slow.hand)
	got := <-taken
	require.Len(t, got, 1)
	s.Refuse(got)
	_, err = c.r.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, s.Close(context.Background()))
	require.NoError(t, <-served)
}
