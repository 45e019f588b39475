package carry

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
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

// owned is the process's end of a client's connection. It notes who closes it.
type owned struct {
	net.Conn
	mu     sync.Mutex
	closed int
}

func (o *owned) Close() error {
	o.mu.Lock()
	o.closed++
	o.mu.Unlock()
	return o.Conn.Close()
}

// process is one of those that serve one after the other. A request waits in its handler until it is let go.
type process struct {
	w       *world
	ingress *Ingress
	http    *http.Server
	ln      *pipes
	served  chan error

	mu     sync.Mutex
	giveUp chan struct{} // closed while everything is carried
}

// world is a number of clients and the process that serves them.
type world struct {
	now     *process
	clients []*walker

	mu         sync.Mutex
	letGo      chan struct{} // closed to let every request that waits be answered
	answered   map[string]int
	impossible []string
	// connections, in all: that were carried, that followed with their answers, that stayed when that was called off
	carried, followed, stayed int
}

// walker is a client. Its requests are one stream of bytes that arrives in pieces of any size.
type walker struct {
	nc      net.Conn
	server  *owned
	out     chan string // pieces that are to be written
	toSend  string
	want    []string // the answers, in order
	written chan struct{}

	mu  sync.Mutex
	got []string
}

func (w *world) start() *process {
	p := &process{w: w, ln: newPipes(), served: make(chan error, 1), giveUp: make(chan struct{})}
	p.ingress = NewIngress(Options{
		Secure: func() bool { return false }, IdleTimeout: time.Hour, Crowded: func(string) {}, TooMany: func(string) string { return "" },
		Impossible: func(ph Phase, o Occurrence) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.impossible = append(w.impossible, fmt.Sprintf("%s × %s", ph, o))
		},
	})
	p.http = &http.Server{
		Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: time.Hour, IdleTimeout: time.Hour, ConnState: p.ingress.ConnState,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context { return With(ctx, Under(nc)) },
	}
	ln, _ := p.ingress.Listen(p.ln, false)
	go func() { p.served <- p.http.Serve(ln) }()
	return p
}

// serve reads the request, waits, and answers with what it was.
func (p *process) serve(rw http.ResponseWriter, r *http.Request) {
	c := Of(r.Context())
	c.Begin()
	var body []byte
	var err error
	c.ReadBody(func() { body, err = io.ReadAll(r.Body) })
	p.mu.Lock()
	giveUp := p.giveUp
	p.mu.Unlock()
	p.w.mu.Lock()
	letGo := p.w.letGo
	p.w.mu.Unlock()
	late := c.IsCarrying()
	switch kind, _, _ := strings.Cut(r.URL.Path[1:], "/"); {
	case err != nil || late:
	case kind == "wait":
		select {
		case <-letGo:
		case <-giveUp:
		case <-r.Context().Done():
		}
	case kind == "stay": // and be answered here, whatever happens
		select {
		case <-letGo:
		case <-r.Context().Done():
		}
	}
	if c.IsCarrying() && (late || r.Context().Err() != nil || !strings.HasPrefix(r.URL.Path, "/stay")) {
		if _, _, err := http.NewResponseController(rw).Hijack(); err == nil {
			c.GiveUp("")
			return
		}
	}
	if err != nil || r.Context().Err() != nil {
		return
	}
	answer := r.URL.Path + " " + string(body)
	p.w.mu.Lock()
	p.w.answered[answer]++
	p.w.mu.Unlock()
	_, _ = io.WriteString(rw, answer)
}

// carry has the connections carried: to the next process, or back to this one. Those whose answers are under way are
// waited for only for a moment.
func (w *world) carry(inVain bool) {
	p := w.now
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // of the bubble
	defer cancel()
	carried := p.ingress.Carry(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(p.giveUp)
	})
	w.carried += len(carried)
	if inVain {
		p.mu.Lock()
		p.giveUp = make(chan struct{})
		p.mu.Unlock()
		w.stayed += p.ingress.Open()
		p.ingress.Resume(carried)
		return
	}
	w.now = w.start()
	w.now.ingress.Resume(carried)
	w.release()
	patient, stop := context.WithTimeout(context.Background(), time.Hour)
	defer stop()
	for {
		late := p.ingress.Next(patient)
		if len(late) == 0 {
			break
		}
		w.followed += len(late)
		for _, c := range late {
			w.now.ingress.Adopt(c)
		}
	}
	for c := range p.ingress.roster.open {
		w.impossible = append(w.impossible, fmt.Sprintf("left behind in phase %s, facts %b, unanswered %q", c.phase, c.facts, c.Unanswered))
		_ = c.Conn.Close()
	}
	p.end()
}

func (p *process) end() {
	p.ingress.CloseUntouched()
	_ = p.http.Shutdown(context.Background())
	<-p.served //nolint:errcheck // it was closed
	_ = p.ln.Close()
}

func (w *world) connect(requests []string) {
	ours, theirs := net.Pipe()
	c := &walker{nc: ours, server: &owned{Conn: theirs}, out: make(chan string, 1000), written: make(chan struct{}), want: requests}
	for i, r := range requests {
		path, body, _ := strings.Cut(r, " ")
		if body == "" && i%2 == 0 {
			c.toSend += fmt.Sprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		} else {
			c.toSend += fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s\r\n", path, len(body), body) // and a line end too many
		}
	}
	w.now.ln.incoming <- c.server
	go func() {
		defer close(c.written)
		for s := range c.out {
			if _, err := io.WriteString(ours, s); err != nil {
				return
			}
		}
	}()
	go func() {
		in := bufio.NewReader(ours)
		for {
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			c.mu.Lock()
			c.got = append(c.got, string(body))
			c.mu.Unlock()
		}
	}()
	w.clients = append(w.clients, c)
}

func (c *walker) send(n int) {
	n = min(n, len(c.toSend))
	if n > 0 {
		c.out <- c.toSend[:n]
		c.toSend = c.toSend[n:]
	}
}

// release lets the requests that wait be answered.
func (w *world) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.letGo)
	w.letGo = make(chan struct{})
}

// sound holds the world to what is true at any moment.
func (w *world) sound() error {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.impossible) > 0 {
		return fmt.Errorf("impossible: %v", w.impossible)
	}
	for answer, n := range w.answered {
		if n != 1 {
			return fmt.Errorf("%q was answered %d times", answer, n)
		}
	}
	owner := make(map[net.Conn]int)
	r := w.now.ingress.roster
	for c := range r.open {
		owner[c.Conn]++
		if !c.facts.Has(Lost) && len(c.Unanswered) > 0 != (c.phase == Reading || c.phase == Serving || c.phase == Body) {
			return fmt.Errorf("%d bytes are unanswered in phase %s", len(c.Unanswered), c.phase)
		}
	}
	for _, c := range r.carried {
		owner[c.Conn]++
	}
	for i, c := range w.clients {
		if c.server.closed > 0 || owner[c.server] != 1 {
			return fmt.Errorf("connection %d has %d owners and was closed %d times", i, owner[c.server], c.server.closed)
		}
	}
	return nil
}

// finish sends what is left, and compares what each client got with what it asked.
func (w *world) finish() error {
	for _, c := range w.clients {
		c.send(len(c.toSend))
		close(c.out)
	}
	for range 100 { // requests of a connection wait one after the other
		synctest.Wait()
		w.release()
	}
	if err := w.sound(); err != nil {
		return err
	}
	for i, c := range w.clients {
		c.mu.Lock()
		got := slices.Clone(c.got)
		c.mu.Unlock()
		if !slices.Equal(c.want, got) {
			return fmt.Errorf("client %d asked %q and was answered %q", i, c.want, got)
		}
	}
	return nil
}

// close ends everything, so that the bubble can end.
func (w *world) close() {
	for _, c := range w.clients {
		_ = c.nc.Close()
		_ = c.server.Conn.Close()
	}
	w.release()
	synctest.Wait()
	_ = w.now.http.Close()
	<-w.now.served //nolint:errcheck // it was closed
	for _, c := range w.clients {
		select {
		case <-c.out:
		default:
		}
		<-c.written
	}
}

// step is one of what can happen next.
type step struct {
	name   string
	client int
	n      int
}

// Clients whose requests arrive in any pieces, while everything is carried at any moment: every request is answered once
// and in order, and each socket has one owner. With real net/http on both sides of every carrying.
func TestNoByteIsLostOrAnsweredTwice(t *testing.T) {
	counts := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		var requests [][]string
		for i := range rapid.IntRange(1, 4).Draw(rt, "clients") {
			var all []string
			for k := range rapid.IntRange(1, 6).Draw(rt, "requests") {
				path := rapid.SampledFrom([]string{"/now", "/wait", "/stay"}).Draw(rt, "path")
				body := strings.Repeat("b", rapid.IntRange(0, 3).Draw(rt, "body")*7)
				all = append(all, fmt.Sprintf("%s/%d/%d %s", path, i, k, body))
			}
			requests = append(requests, all)
		}
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				rapid.SampledFrom([]string{"send", "send", "send", "send", "release", "carry", "carry in vain"}).Draw(rt, "step"),
				rapid.IntRange(0, len(requests)-1).Draw(rt, "client"), rapid.IntRange(1, 120).Draw(rt, "bytes"),
			}
		}), 10, 60).Draw(rt, "steps")
		var err error
		synctest.Test(t, func(*testing.T) {
			w := &world{letGo: make(chan struct{}), answered: make(map[string]int)}
			w.now = w.start()
			w.now.ingress.Resume(nil)
			for _, all := range requests {
				w.connect(all)
			}
			defer w.close()
			for _, s := range steps {
				counts[s.name]++
				switch s.name {
				case "send":
					w.clients[s.client].send(s.n)
				case "release":
					w.release()
				case "carry", "carry in vain":
					w.carry(s.name != "carry")
				}
				if err = w.sound(); err != nil {
					return
				}
			}
			err = w.finish()
			counts["connections carried"] += w.carried
			counts["connections that followed"] += w.followed
			counts["connections that stayed"] += w.stayed
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%6d × %s", counts[name], name)
	}
}

// Whatever happens to a connection, in whatever order: it ends at most once, either carried or closed, and then for good.
func TestAConnectionEndsOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRoster(Options{IdleTimeout: time.Hour, Impossible: func(p Phase, o Occurrence) { rt.Fatalf("%s × %s", p, o) }})
		s := &socket{}
		c := r.accepted(Connection{Conn: s})
		first := rapid.SampledFrom([]Phase{New, Arrived}).Draw(rt, "first")
		c.phase, c.TLS = first, first == New && rapid.Bool().Draw(rt, "tls")
		ended := 0
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			var can []Occurrence
			for o := range Occurrence(occurrences) {
				cell := decided[c.phase][o][c.facts]
				if cell.Kind != Impossible && (o != Seal || c.TLS && c.phase != Sealed) && (o != Write || !c.TLS || c.phase == Sealed) {
					can = append(can, o)
				}
			}
			o := rapid.SampledFrom(can).Draw(rt, "occurrence")
			if c.TLS && slices.Contains([]Occurrence{Begin, Answered, AnsweredMore}, o) { // those are of the connection inside
				continue
			}
			r.carrying = o == CarryBegins || r.carrying && o != CarryOff
			before, was, unanswered := c.phase, c.facts, len(c.Unanswered)
			_ = raise[o](c, s)
			if !final(before) && final(c.phase) {
				ended++
			}
			if final(before) && before != c.phase || ended > 1 {
				rt.Fatalf("%s became %s by %s", before, c.phase, o)
			}
			if got := len(r.carried) + s.closed; got != ended {
				rt.Fatalf("after %s in %s: carried %d, closed %d", o, before, len(r.carried), s.closed)
			}
			if _, open := r.open[c]; open == final(c.phase) {
				rt.Fatalf("after %s in %s: open %t", o, before, open)
			}
			if was.Has(Lost) && !c.facts.Has(Lost) || was.Has(Gone) && !c.facts.Has(Gone) {
				rt.Fatalf("after %s in %s: what was lost was found", o, before)
			}
			if len(c.Unanswered) < unanswered && !decided[before][o][was].does(Forget) {
				rt.Fatalf("after %s in %s: bytes are missing", o, before)
			}
		}
		for _, p := range r.carried {
			if c.facts&(Gone|Lost) != 0 {
				rt.Fatalf("carried with facts %b", c.facts)
			}
			if p.CloseSent && len(p.Unanswered) > 0 {
				rt.Fatal("a WebSocket has unanswered requests")
			}
		}
	})
}
