// Package openclaw is the WebSocket protocol of OpenClaw's gateway; docs/websocket.md says which part of it.
//
// The invariant: a client is told each event of a run once and in order, and a client that does not read is closed and
// slows nobody.
package openclaw

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"gateway/server/api"
)

// Each connection has one goroutine that reads, one that writes while there is something to write, and one for each
// request that is being answered; all end with it.

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
	hub     *Hub
	b       *api.Backend
	ws      *websocket.Conn
	from    Origin
	request *http.Request
	id      string
	nonce   string // of the challenge

	ctx    context.Context
	cancel context.CancelFunc
	calls  chan struct{} // one for each request that is being answered
	awaits chan struct{} // one for each request that waits for a run
	work   sync.WaitGroup

	peer    peer          // set by the handshake, before anything else runs
	asMain  atomic.Bool   // it calls the default agent main
	greeted chan struct{} // closed once the handshake is over
	place   *list.Element // among those that have connected; the hub's

	out     framed
	writing sync.Mutex     // so that frames keep their order
	ends    sync.WaitGroup // what writes, or says goodbye

	mu             sync.Mutex
	waiting        []outgoing
	buffered       int // bytes of waiting, and of what is being written
	seq            int64
	flushing       bool // somebody writes what waits
	started, ended bool
	leaving        bool // goodbye is being said
	tick           *time.Timer
	pings          int64
	pongs          map[string]chan struct{} // that are waited for
	resumed        map[string]bool          // turns whose events come by chat.resume, and not with those for all
	room           chan struct{}            // closed when what is replayed may go on; nil when nothing waits for that

	replaying sync.Mutex // so that what is replayed waits for its client one event at a time
}

// Origin is where a connection comes from.
type Origin struct {
	// Host is how presence names it.
	Host string
	// Trusted: it came by the control socket, whose file mode is its authentication.
	Trusted bool
	// Under is the connection under the WebSocket; nil when it cannot be carried over a restart.
	Under Conn
}

// Conn is a connection that can be carried over a restart.
type Conn interface {
	// Upgraded is called once the upgrade was answered: no request is left on it that the successor could answer.
	Upgraded()
	// CloseBegins is called before the last frame, after which the client only has to close the connection.
	CloseBegins()
}

// anySocket stands for the request that a connection began as, once nothing of it is needed any more.
var anySocket = &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/"}}

// Open upgrades the connection and serves it until it ends.
func (h *Hub) Open(w http.ResponseWriter, r *http.Request, b *api.Backend, from Origin) error {
	c := &socket{
		hub: h, b: b, from: from, request: r, id: rand.Text(), nonce: newNonce(), greeted: make(chan struct{}),
		calls: make(chan struct{}, maxRequests), awaits: make(chan struct{}, maxAwaited),
	}
	// It ends when the gateway retires, not with the request that it began as.
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if !h.enter(c) {
		c.cancel()
		return api.Unavailable("too_many_connections", "too many WebSocket connections are open. Try: again later", nil)
	}
	c.out.pong = c.pong
	ws, err := c.out.accept(w, r)
	if err != nil {
		c.cancel()
		h.leave(c)
		return nil //nolint:nilerr // it has answered
	}
	if c.from.Under != nil {
		c.from.Under.Upgraded()
	}
	c.ws = ws
	go c.serve() // not here, where net/http would keep its buffers for as long as this takes
	return nil
}

// serve greets the client and leaves the rest to listen, on a stack that is small again.
func (c *socket) serve() {
	c.start()
	if !c.greet() {
		c.finish()
		return
	}
	go c.listen()
}

// start lets the connection write, and be told to end.
func (c *socket) start() {
	context.AfterFunc(c.ctx, func() { _ = c.out.Close() })
	c.mu.Lock()
	c.started = true
	c.tick = time.AfterFunc(tickInterval, c.tickNow)
	c.mu.Unlock()
	select {
	case <-c.hub.opts.Retirement.Begun():
		c.leave()
	default:
	}
}

func (c *socket) greet() bool {
	defer close(c.greeted)
	defer c.recovering()
	silent := time.AfterFunc(connectTime, func() { c.close(websocket.StatusPolicyViolation, "no connect within 15 s") })
	defer silent.Stop()
	c.ws.SetReadLimit(maxFrameBefore)
	c.event("connect.challenge", map[string]any{"nonce": c.nonce, "ts": time.Now().UnixMilli()})
	if !c.handshake(silent) {
		return false
	}
	c.request = anySocket
	c.ws.SetReadLimit(maxFrame)
	return true
}

// recovering ends a connection whose goroutine panicked, and logs the stack.
func (c *socket) recovering() {
	if p := recover(); p != nil {
		c.hub.opts.Log.Error().Interface("panic", p).Stack().Msg("a connection panicked; please report it")
	}
}

// finish waits for all that belongs to the connection.
func (c *socket) finish() {
	c.cancel()
	c.work.Wait()
	_ = c.ws.CloseNow()
	c.mu.Lock()
	c.ended, c.waiting = true, nil
	c.tick.Stop()
	c.mu.Unlock()
	c.ends.Wait()
	c.hub.leave(c)
}

// listen answers requests until the connection ends.
func (c *socket) listen() {
	defer c.finish()
	defer c.recovering()
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
	all, err := api.ParseFields(text)
	if !isText || err != nil || api.NotText(text) >= 0 {
		return f, errNotAFrame
	}
	err = all.TakeMembers(api.Into("type", &f.Type), api.Into("id", &f.ID), api.Into("method", &f.Method), api.Into("params", &f.Params))
	if err != nil || f.Type != "req" || f.ID == "" || f.Method == "" || !api.Printable(f.ID, api.MaxKey) || len(all) > 0 {
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

func (c *socket) send(f frame) {
	text, err := json.Marshal(f)
	if err != nil {
		c.hub.opts.Log.Error().Err(err).Str("event", f.Event).Msg("a frame could not be encoded; please report it")
		return
	}
	numbered := f.Type == "event" && f.Event != "connect.challenge"
	if numbered {
		text = text[:len(text)-1]
	}
	c.queue(text, numbered, true)
}

// tickNow sends a tick, and has the next one sent.
func (c *socket) tickNow() {
	c.event("tick", map[string]any{"ts": time.Now().UnixMilli()})
	c.hub.tellHealth(c.b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.tick.Reset(tickInterval)
	}
}

// leave has goodbye said, once.
func (c *socket) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started || c.ended || c.leaving {
		return
	}
	c.leaving = true
	c.ends.Go(c.sayGoodbye)
}

// sayGoodbye ends the connection when the gateway stops or restarts. A client that is about to connect is told then to
// try again, which clients do by themselves.
func (c *socket) sayGoodbye() {
	select {
	case <-c.greeted:
	case <-c.ctx.Done():
		return
	case <-time.After(goodbye):
		c.close(websocket.StatusTryAgainLater, "the gateway restarts")
		return
	}
	c.hub.quiet(c.ctx) // what ended in the drain is told before the goodbye
	n := c.hub.opts.Retirement.Notice()
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
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.from.Under != nil {
		c.from.Under.CloseBegins()
	}
	_ = c.ws.Close(code, reason)
	c.cancel()
}
