package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/xid"
)

// The WebSocket protocol is that of OpenClaw's gateway; docs/websocket.md says which part of it. Each connection has
// one goroutine that reads, one that writes, and one for each request that is being answered; all end with it.

const (
	maxFrameBefore = 64 << 10 // bytes of a frame before connect
	maxFrame       = 26_214_400
	maxBuffered    = 52_428_800 // bytes that may wait for a client; one that is slower is closed
	maxSockets     = 10_000
	maxStrangers   = 1_000 // connections that have not connected yet: they have shown no token
	maxRequests    = 64    // of a connection that are being answered; further ones wait unread
	maxAwaited     = 64    // of a connection that wait for a run; further ones are refused
	requestTime    = 30 * time.Second
	connectTime    = 15 * time.Second
	tickInterval   = 30 * time.Second
	// goodbye is how long the close handshake of a connection may take.
	goodbye = 300 * time.Millisecond
)

// frame is what goes over the wire, either way.
type frame struct {
	Type    string          `json:"type"`
	ID      string          `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	OK      *bool           `json:"ok,omitempty"`
	Payload any             `json:"payload,omitempty"`
	Error   *frameError     `json:"error,omitempty"`
	Event   string          `json:"event,omitempty"`
	Seq     int64           `json:"seq,omitempty"`
}

// frameError is the error of a response.
type frameError struct {
	Code         string         `json:"code"`
	Message      string         `json:"message"`
	Details      map[string]any `json:"details,omitempty"`
	Retryable    bool           `json:"retryable,omitempty"`
	RetryAfterMS int64          `json:"retryAfterMs,omitempty"`
}

// Error makes it an error, so that handlers return it as one.
func (e *frameError) Error() string { return e.Message }

// The codes of errors.
const (
	codeInvalid     = "INVALID_REQUEST"
	codeUnavailable = "UNAVAILABLE"
	codeForbidden   = "FORBIDDEN"
	codeNotPaired   = "NOT_PAIRED"
	codeTimeout     = "AGENT_TIMEOUT"
)

func badFrame(message string) *frameError { return &frameError{Code: codeInvalid, Message: message} }

// socket is one WebSocket connection of one generation.
type socket struct {
	s       *Server
	b       *Backend
	ws      *websocket.Conn
	request *http.Request
	id      string
	nonce   string // of the challenge

	ctx    context.Context
	cancel context.CancelFunc
	calls  chan struct{} // one for each request that is being answered
	awaits chan struct{} // one for each request that waits for a run
	work   sync.WaitGroup

	peer    peer          // set by the handshake, before anything else runs
	greeted chan struct{} // closed once the handshake is over

	writing  sync.Mutex // so that frames keep their order
	mu       sync.Mutex
	waiting  [][]byte
	buffered int
	seq      int64
	wake     chan struct{}
}

// openSocket upgrades the connection and serves it until it ends.
func (s *Server) openSocket(w http.ResponseWriter, r *http.Request, b *Backend) error {
	if !isUpgrade(r) {
		return notFound("not_found", "", "there is no page at %s. Try: GET /v1/models, or a WebSocket client", r.URL.Path)
	}
	c := &socket{
		s: s, b: b, request: r, id: xid.New().String(), nonce: newNonce(), greeted: make(chan struct{}),
		calls: make(chan struct{}, maxRequests), awaits: make(chan struct{}, maxAwaited), wake: make(chan struct{}, 1),
	}
	// It ends when the gateway retires, not with the request that it began as.
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(r.Context()))
	defer c.cancel()
	if !s.hub.enter(c) {
		return unavailable("too_many_connections", "too many WebSocket connections are open. Try: again later", nil)
	}
	defer s.hub.leave(c)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil //nolint:nilerr // it has answered
	}
	if nc := connOf(r.Context()); nc != nil {
		nc.becomeSocket()
	}
	c.ws = ws
	defer func() { _ = ws.CloseNow() }()
	c.serve()
	return nil
}

func (c *socket) serve() {
	var background sync.WaitGroup
	defer background.Wait()
	defer c.cancel()
	background.Go(c.write)
	background.Go(c.untilRetired)
	silent := time.AfterFunc(connectTime, func() { c.close(websocket.StatusPolicyViolation, "no connect within 15 s") })
	defer silent.Stop()
	c.ws.SetReadLimit(maxFrameBefore)
	c.event("connect.challenge", map[string]any{"nonce": c.nonce, "ts": time.Now().UnixMilli()})
	ok := c.handshake(silent)
	close(c.greeted)
	if !ok {
		return
	}
	c.ws.SetReadLimit(maxFrame)
	defer c.work.Wait()
	defer c.cancel()
	for {
		f, err := c.read()
		if errors.Is(err, errNotAFrame) {
			c.respond("invalid", nil, badFrame("invalid request frame"))
			continue
		}
		if err != nil {
			return
		}
		if inOrder(f.Method) {
			c.answer(f)
			continue
		}
		select {
		case c.calls <- struct{}{}:
		case <-c.ctx.Done():
			return
		}
		c.work.Go(func() {
			defer func() { <-c.calls }()
			c.answer(f)
		})
	}
}

var errNotAFrame = errors.New("server: not a request frame")

// read returns the next request.
func (c *socket) read() (frame, error) {
	kind, text, err := c.ws.Read(c.ctx)
	if err != nil {
		return frame{}, err
	}
	return parseFrame(kind == websocket.MessageText, text)
}

// parseFrame reads a request: {"type":"req","id":…,"method":…,"params":{…}}.
func parseFrame(isText bool, text []byte) (f frame, err error) {
	all, err := parseFields(text)
	if !isText || err != nil || notText(text) >= 0 {
		return f, errNotAFrame
	}
	err = all.takeEach(member{"type", &f.Type}, member{"id", &f.ID}, member{"method", &f.Method}, member{"params", &f.Params})
	if err != nil || f.Type != "req" || f.ID == "" || f.Method == "" || !printable(f.ID, maxKey) || len(all) > 0 {
		return f, errNotAFrame
	}
	return f, nil
}

func (c *socket) respond(id string, payload any, err *frameError) {
	ok := err == nil
	c.send(frame{Type: "res", ID: id, OK: &ok, Payload: payload, Error: err})
}

// event sends an event, with the next number of this connection.
func (c *socket) event(name string, payload any) {
	c.send(frame{Type: "event", Event: name, Payload: payload})
}

// send puts a frame in line. It never waits: a client that does not read is closed, and slows nobody.
func (c *socket) send(f frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Type == "event" && f.Event != "connect.challenge" {
		c.seq++
		f.Seq = c.seq
	}
	text, err := json.Marshal(f)
	if err != nil {
		c.s.opts.Log.Error().Err(err).Str("event", f.Event).Msg("a frame could not be encoded; please report it")
		return
	}
	if c.buffered += len(text); c.buffered > maxBuffered {
		c.cancel()
		return
	}
	c.waiting = append(c.waiting, text)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write sends what is in line, and a tick now and then.
func (c *socket) write() {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.wake:
			if !c.flush() {
				c.cancel()
				return
			}
		case <-tick.C:
			c.event("tick", map[string]any{"ts": time.Now().UnixMilli()})
			c.s.hub.tellHealth(c.b)
		case <-c.ctx.Done():
			return
		}
	}
}

// flush writes all that is in line; false when the client does not take it.
func (c *socket) flush() bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.mu.Unlock()
			return true
		}
		text := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(c.ctx, writeTimeout)
		err := c.ws.Write(ctx, websocket.MessageText, text)
		cancel()
		c.mu.Lock()
		c.buffered -= len(text)
		c.mu.Unlock()
		if err != nil {
			return false
		}
	}
}

// untilRetired says goodbye when the gateway stops or restarts. A client that is about to connect is told then to try
// again, which clients do by themselves.
func (c *socket) untilRetired() {
	retiring, notice := c.s.retiring()
	select {
	case <-c.ctx.Done():
		return
	case <-retiring:
	}
	select {
	case <-c.greeted:
	case <-c.ctx.Done():
		return
	case <-time.After(goodbye):
		c.close(websocket.StatusTryAgainLater, "the gateway restarts")
		return
	}
	c.s.hub.quiet(c.ctx) // what ended in the drain is told before the goodbye
	n := notice()
	bye := map[string]any{"reason": n.Reason}
	if n.RestartExpectedMS != nil {
		bye["restartExpectedMs"] = *n.RestartExpectedMS
	}
	c.event("shutdown", bye)
	c.close(websocket.StatusServiceRestart, "service restart")
}

// close sends what is in line and ends the connection, politely for as long as that takes a moment.
func (c *socket) close(code websocket.StatusCode, reason string) {
	late := time.AfterFunc(goodbye, c.cancel)
	defer late.Stop()
	c.flush()
	_ = c.ws.Close(code, reason)
	c.cancel()
}

// hub knows the connections of this process, and the runs that are told to them.
type hub struct {
	ctx     context.Context // ends what is told
	cancel  context.CancelFunc
	follows sync.WaitGroup
	census  census

	taking  sync.Mutex
	takenUp *Backend // whose unfinished runs are told

	mu        sync.Mutex
	all       map[*socket]bool  // whether it has connected
	runs      map[followed]bool // that are told
	strangers int               // connections that have not connected
	// The turns of the runs that were asked for here, by run, lately and a while ago: what agent.wait need not look for.
	lately, before map[string]string
	closed         bool
	changed        chan struct{} // closed when a connection or a run has ended
	version        int           // of the presence
	telling        bool          // the presence, in a moment
	toldAt         time.Time     // when all were told the health
}

func newHub() *hub {
	h := &hub{all: map[*socket]bool{}, runs: map[followed]bool{}, lately: map[string]string{}, changed: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

func (h *hub) enter(c *socket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.all) >= maxSockets || h.strangers >= maxStrangers {
		return false
	}
	h.all[c] = false
	h.strangers++
	return true
}

// joined greets the client and tells it everything from then on.
func (h *hub) joined(c *socket, greet func()) {
	h.mu.Lock()
	greet()
	h.all[c] = true
	h.strangers--
	h.version++
	h.mu.Unlock()
	h.tellPresence()
}

func (h *hub) leave(c *socket) {
	h.mu.Lock()
	was := h.all[c]
	delete(h.all, c)
	if was {
		h.version++
	} else {
		h.strangers--
	}
	h.wakeLocked()
	h.mu.Unlock()
	if was {
		h.tellPresence()
	}
}

// connected are the clients that have the scope.
func (h *hub) connected(scope string) (all []*socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c, joined := range h.all {
		if joined && c.peer.may(scope) {
			all = append(all, c)
		}
	}
	return all
}

// tell sends an event to everybody who may read.
func (h *hub) tell(name string, payload any) {
	all := h.connected(scopeRead)
	if len(all) == 0 {
		return
	}
	once, err := json.Marshal(payload)
	if err != nil {
		all[0].s.opts.Log.Error().Err(err).Str("event", name).Msg("an event could not be encoded; please report it")
		return
	}
	for _, c := range all {
		c.event(name, json.RawMessage(once))
	}
}

func (h *hub) wakeLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Those who come and go are gathered for presenceInterval, and presencePerClient for each that is there, before all are
// told: many clients are told less often.
const (
	presenceInterval  = 200 * time.Millisecond
	presencePerClient = time.Millisecond
)

func (h *hub) tellPresence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.telling || h.closed {
		return
	}
	h.telling = true
	time.AfterFunc(presenceInterval+time.Duration(len(h.all))*presencePerClient, func() {
		h.mu.Lock()
		h.telling = false
		h.mu.Unlock()
		h.tell("presence", map[string]any{"presence": h.presence()})
	})
}

// rememberedRuns bounds each of the two maps of runs.
const rememberedRuns = 5000

func (h *hub) remember(run, turn string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lately) >= rememberedRuns {
		h.lately, h.before = map[string]string{}, h.lately
	}
	h.lately[run] = turn
}

// turnOf is the turn of a run that was asked for here; empty when it is not known.
func (h *hub) turnOf(run string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if turn, ok := h.lately[run]; ok {
		return turn
	}
	return h.before[run]
}

// quiet waits until no run is told any more, for at most a moment.
func (h *hub) quiet(ctx context.Context) {
	limit := time.NewTimer(lastEvents)
	defer limit.Stop()
	for {
		h.mu.Lock()
		left, changed := len(h.runs), h.changed
		h.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-changed:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// close waits until all connections have ended; when ctx ends first they are cut. Runs are told until their queue
// closes, or until ctx ends.
func (h *hub) close(ctx context.Context) {
	defer context.AfterFunc(ctx, h.cancel)()
	defer h.follows.Wait()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	for cut := false; ; {
		h.mu.Lock()
		left, changed := len(h.all), h.changed
		if ctx.Err() != nil && !cut {
			cut = true
			for c := range h.all {
				c.cancel()
			}
		}
		h.mu.Unlock()
		if left == 0 {
			return
		}
		done := ctx.Done()
		if cut {
			done = nil
		}
		select {
		case <-changed:
		case <-done:
		}
	}
}
