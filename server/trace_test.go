package server

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var writeTraces = flag.Bool("update", false, "write the golden files of this package instead of comparing with them")

// ingress is the listener that the process images of a test share. It records what happens to each connection at the
// seams around the connection: the socket below it, net/http above it, and what one image carries to the next. The
// record knows no type between the seams, so the same record shows whether another implementation decides alike.
type ingress struct {
	*net.TCPListener
	t *testing.T

	mu       sync.Mutex
	closed   bool              // what comes now is the end of the test
	byClient map[string]*trace // by the client's address
	inOrder  []*trace          // as the clients dialled
}

// trace is what happened to one connection.
type trace struct {
	lines []string
	owner string // the image that has the connection
	ended bool
	read  int // bytes since the last line
	text  string
	total int // bytes in all
	eof   bool
	busy  bool // a handler runs, or its answer is on the way
}

// longText is how many bytes of what was read or written are shown.
const longText = 200

var autoKey = regexp.MustCompile(`auto-[A-Z0-9]+`)

// newIngress listens. Its record is compared by compare, at the end of the test's own body.
func newIngress(t *testing.T) *ingress {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() }) // the image may have closed it
	return &ingress{TCPListener: ln.(*net.TCPListener), t: t, byClient: make(map[string]*trace)}
}

// dialled gives a client's connection its place in the record.
func (i *ingress) dialled(client net.Addr) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.inOrder = append(i.inOrder, i.of(client.String()))
}

// of is called with mu held.
func (i *ingress) of(client string) *trace {
	if i.byClient[client] == nil {
		i.byClient[client] = &trace{}
	}
	return i.byClient[client]
}

// note adds a line to the record of one client's connection.
func (i *ingress) note(client, format string, args ...any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.noteLocked(i.of(client), format, args...)
}

func (i *ingress) noteLocked(tr *trace, format string, args ...any) {
	if i.closed {
		return
	}
	tr.flush()
	tr.lines = append(tr.lines, autoKey.ReplaceAllString(fmt.Sprintf(format, args...), "auto-…"))
}

// ended notes, once, that the client has closed its side.
func (i *ingress) ended(client string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if tr := i.of(client); !tr.eof {
		tr.eof = true
		i.noteLocked(tr, "the client has closed")
	}
}

// came waits until n bytes of a client have been read in all.
func (i *ingress) came(c *client, n int) {
	waitFor(i.t, func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.of(c.LocalAddr().String()).total >= n
	})
}

// saw waits until the record of a client ends with a line.
func (i *ingress) saw(c *client, line string) {
	waitFor(i.t, func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		lines := i.of(c.LocalAddr().String()).lines
		return len(lines) > 0 && strings.HasSuffix(lines[len(lines)-1], line)
	})
}

// flush writes the line of what was read since the last one: the size of a single read is the kernel's affair.
func (tr *trace) flush() {
	if tr.read > 0 {
		tr.lines = append(tr.lines, "read "+quoted(tr.read, tr.text))
	}
	tr.read, tr.text = 0, ""
}

func quoted(n int, text string) string {
	if n > longText {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%q", text)
}

// carried notes what an image hands over.
func (i *ingress) carried(client, image string, tls, parted bool, unanswered []byte) {
	what := "nothing unanswered"
	if n := len(unanswered); n > 0 {
		what = "unanswered " + quoted(len(autoKey.ReplaceAll(unanswered, []byte("auto-…"))), string(unanswered))
	}
	if tls {
		what += ", TLS to begin"
	}
	if parted {
		what += ", only to be closed by its client"
	}
	i.note(client, "%s: carried, %s", image, what)
}

// each calls f with every connection that an image has.
func (i *ingress) each(image, line string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, tr := range i.byClient {
		if tr.owner == image && !tr.ended {
			i.noteLocked(tr, "%s: %s", image, line)
		}
	}
}

// owned notes who has a connection from now on.
func (i *ingress) owned(client, image, how string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	tr := i.of(client)
	tr.owner, tr.busy = image, false
	i.noteLocked(tr, "%s: %s", image, how)
}

func (i *ingress) setBusy(client string, busy bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.of(client).busy = busy
}

// rest waits until no answer is on the way to a client.
func (i *ingress) rest(client string) {
	waitFor(i.t, func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		return !i.of(client).busy
	})
}

func (i *ingress) clients() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Collect(maps.Keys(i.byClient))
}

// compare holds the record to the golden file of the test.
func (i *ingress) compare() {
	i.t.Helper()
	if i.t.Failed() {
		return
	}
	for _, client := range i.clients() {
		i.rest(client)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	var b strings.Builder
	for n, tr := range i.inOrder {
		tr.flush()
		fmt.Fprintf(&b, "connection %d\n", n+1)
		for _, line := range tr.lines {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	i.closed = true
	name := filepath.Join("testdata", "traces", strings.NewReplacer("/", "-", " ", "_", ",", "").Replace(i.t.Name())+".txt")
	if *writeTraces {
		require.NoError(i.t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(i.t, os.WriteFile(name, []byte(b.String()), 0o600))
		return
	}
	want, err := os.ReadFile(name)
	require.NoError(i.t, err)
	require.Equal(i.t, string(want), b.String(), "the record of the connections has changed. Try: go test ./server -update, and read the difference")
}

// recorded is the listener of one image.
type recorded struct {
	*net.TCPListener
	*ingress
	image string
}

func (l recorded) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err != nil {
		return nil, err
	}
	client := c.RemoteAddr().String()
	l.owned(client, l.image, "accepted")
	return &recordedConn{Conn: c, ingress: l.ingress, client: client}, nil
}

func (l recorded) Addr() net.Addr { return l.TCPListener.Addr() }

func (l recorded) SetDeadline(t time.Time) error { return l.TCPListener.SetDeadline(t) }

func (l recorded) Close() error { return l.TCPListener.Close() }

// recordedConn is the socket of one client.
type recordedConn struct {
	net.Conn
	*ingress
	client string
}

// Read notes what came. That a read was interrupted is no fact of the connection.
func (c *recordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	if tr := c.of(c.client); n > 0 && !c.closed {
		tr.read += n
		tr.total += n
		if tr.read <= longText {
			tr.text += string(p[:n])
		}
	}
	c.mu.Unlock()
	if errors.Is(err, io.EOF) {
		c.ended(c.client)
	}
	return n, err
}

// Write notes the first line of an answer, and that bytes were written for what is not HTTP.
func (c *recordedConn) Write(p []byte) (int, error) {
	line, _, _ := strings.Cut(string(p), "\r\n")
	if strings.HasPrefix(line, "HTTP/1.1 ") {
		c.setBusy(c.client, true) // also without a handler of ours
	} else {
		line = "other bytes"
	}
	c.note(c.client, "written %s", line)
	return c.Conn.Write(p)
}

func (c *recordedConn) Close() error {
	c.mu.Lock()
	tr := c.of(c.client)
	c.noteLocked(tr, "closed")
	tr.ended, tr.busy = true, false
	c.mu.Unlock()
	return c.Conn.Close()
}

func (c *recordedConn) CloseWrite() error {
	c.note(c.client, "closed for writing")
	return c.Conn.(*net.TCPConn).CloseWrite()
}

// handler notes when net/http has read the head of a request, and when its handler is done.
func (i *ingress) handler(image string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.setBusy(r.RemoteAddr, true)
		i.note(r.RemoteAddr, "%s: handler begins %s %s", image, r.Method, r.URL.Path)
		next.ServeHTTP(w, r)
		i.note(r.RemoteAddr, "%s: handler ends", image)
	})
}

// state notes what net/http makes of a connection.
func (i *ingress) state(image string, next func(net.Conn, http.ConnState)) func(net.Conn, http.ConnState) {
	return func(nc net.Conn, state http.ConnState) {
		client := nc.RemoteAddr().String()
		switch state {
		case http.StateIdle:
			i.note(client, "%s: answered", image)
		case http.StateHijacked:
			i.note(client, "%s: hijacked", image)
		case http.StateNew, http.StateActive, http.StateClosed:
		}
		next(nc, state)
		if state == http.StateIdle || state == http.StateHijacked || state == http.StateClosed {
			i.setBusy(client, false)
		}
	}
}
