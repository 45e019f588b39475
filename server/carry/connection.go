// Package carry has the client connections of one process, each of which can go on in another one.
package carry

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// ReplayLimit is how many bytes of an unanswered request a connection keeps. A larger one is served, but
// cannot be carried over a restart.
const ReplayLimit = 32 << 20

// ErrCarried is the error of what is asked of a connection that whoever serves next will answer.
var ErrCarried = errors.New("carry: the connection is carried over")

// lineEnds before a request mean nothing.
const lineEnds = "\r\n"

// Served is a client's connection that can be carried to the next process image at any moment: it remembers
// every byte that was read and not yet answered.
type Served struct {
	net.Conn
	roster *roster
	from   netip.Prefix
	Local  bool // came through the control socket

	mu sync.Mutex
	// pending is what was read since the last answer: the request being read or served, and whatever the
	// client sent behind it.
	pending []byte
	replay  []byte // of pending, what Read has yet to return
	lost    bool   // pending outgrew ReplayLimit
	gone    bool   // the client closed, or the connection broke
	serving bool   // a handler has the request
	reading bool   // and it still reads the body
	parking bool
	done    bool
	fresh   bool // carried over idle: nothing was read here yet
	// carried over between two requests: line ends that come before the next one are passed over, as net/http does
	// only on the connection that it read a POST from (RFC 9112, 2.2)
	between bool
	used    bool // something was read here
	socket  bool // it speaks WebSocket now
	parting bool // the next frame that closes it is the last one
	parted  bool // which was written: nothing but the client's own is missing
	// The client expects TLS. Once the handshake is answered only this process can go on with it.
	TLS, sealed bool
}

// Read remembers what it returns.
func (c *Served) Read(p []byte) (int, error) {
	c.mu.Lock()
	if len(c.replay) > 0 {
		n := copy(p, c.replay)
		c.replay = c.replay[n:]
		c.used = true
		c.mu.Unlock()
		return n, nil
	}
	c.mu.Unlock()
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	for c.between && n > 0 {
		if text := bytes.TrimLeft(p[:n], lineEnds); len(text) > 0 {
			c.between, n = false, copy(p, text)
			break
		}
		if n = 0; err != nil {
			break
		}
		c.mu.Unlock()
		n, err = c.Conn.Read(p)
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	c.fresh = c.fresh && n == 0
	c.used = c.used || n > 0
	if !c.lost && !c.socket && !c.sealed {
		c.pending = append(c.pending, p[:n]...)
		if len(c.pending) > ReplayLimit {
			c.pending, c.lost = nil, true
		}
	}
	var timeout net.Error
	if err != nil && (!errors.As(err, &timeout) || !timeout.Timeout()) {
		c.gone = true
	}
	return n, err
}

// Write drops what net/http says about a request that was cut short by parking: bufio.Reader.ReadLine
// takes the half line before a timeout for a whole one, so net/http answers it with 400.
func (c *Served) Write(p []byte) (int, error) {
	c.mu.Lock()
	cut := c.parking && !c.serving
	seals := !cut && c.TLS && !c.sealed
	if seals {
		c.sealed, c.serving, c.pending = true, true, nil
	}
	c.mu.Unlock()
	if cut {
		return 0, ErrCarried
	}
	if seals {
		c.roster.wake()
	}
	n, err := c.Conn.Write(p)
	if err == nil && c.parts(p) {
		c.roster.wake()
	}
	return n, err
}

// CloseBegins is for a WebSocket that is about to be closed, once no other frame but those of control can be written.
func (c *Served) CloseBegins() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parting = true
}

// parts reports whether p was the frame that closes a WebSocket.
func (c *Served) parts(p []byte) bool {
	const final, closing = 0x80, 0x8 // RFC 6455, 5.2
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parted = c.parted || (c.parting && len(p) > 0 && p[0] == final|closing)
	return c.parted
}

// leave parks a WebSocket that was told to come back.
func (c *Served) leave() {
	c.mu.Lock()
	if !c.parted || c.gone || c.done {
		c.mu.Unlock()
		return
	}
	c.done = true
	c.mu.Unlock()
	c.roster.park(c)
}

// SetReadDeadline leaves the deadline alone while the connection is being parked: the past one is what
// makes net/http give it up.
func (c *Served) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parking && c.interruptible() {
		return nil
	}
	if c.fresh && !c.TLS && !t.IsZero() { // net/http takes it for a new connection, from which it expects a request soon
		t = time.Now().Add(c.roster.opts.IdleTimeout)
	}
	return c.Conn.SetReadDeadline(t)
}

// Close closes the connection, unless net/http gives up one that is being parked and was not being
// answered: that one is kept.
func (c *Served) Close() error {
	c.mu.Lock()
	keep := c.parking && !c.serving && !c.gone && !c.lost && !c.done
	done := c.done
	c.done = true
	c.mu.Unlock()
	if done {
		return nil
	}
	if keep {
		c.roster.park(c)
		return nil
	}
	c.roster.remove(c)
	return c.Conn.Close()
}

// Begin marks that a handler has the request: from now on only the handler may park the connection.
func (c *Served) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving = true
}

// answered forgets the first request of pending. What the client sent behind it stays.
func (c *Served) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving = false
	if c.lost { // and stays so: net/http may have read some of the next request already, and nobody knows how much
		return
	}
	rest := bytes.NewReader(bytes.TrimLeft(c.pending, lineEnds)) // net/http passes over line ends before a request
	buffered := bufio.NewReader(rest)
	req, err := http.ReadRequest(buffered)
	if err == nil {
		_, err = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	if err != nil { // what cannot be told apart from the answered request must not be replayed
		c.pending, c.lost = nil, true
		return
	}
	c.pending = append([]byte(nil), c.pending[len(c.pending)-rest.Len()-buffered.Buffered():]...)
	if c.parking {
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// beginParking makes net/http give up the connection, unless a handler has it.
func (c *Served) beginParking() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parking = true
	if c.interruptible() {
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// endParking takes beginParking back, for a connection that is still open because it was being answered.
func (c *Served) endParking() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parking {
		c.parking = false
		if c.sealed { // its deadline is net/http's
			return
		}
		_ = c.Conn.SetReadDeadline(time.Time{})
	}
}

// Upgraded is for a connection whose upgrade was answered.
func (c *Served) Upgraded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket, c.pending = true, nil
}

// untouched reports whether nothing has been read from the client here.
func (c *Served) untouched() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.used && !c.serving
}

// stays reports whether the connection can only be ended here.
func (c *Served) stays() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sealed
}

// interruptible reports whether nothing but the client's next bytes is waited for.
func (c *Served) interruptible() bool { return !c.serving || c.reading }

// ReadBody runs read, which parking may interrupt with a timeout.
func (c *Served) ReadBody(read func()) {
	c.mu.Lock()
	c.reading = true
	if c.parking {
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
	c.mu.Unlock()
	read()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
}

// Drop forgets a request that was refused while it came; the connection ends with the answer.
func (c *Served) Drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending, c.lost = nil, true
}

// IsLost reports whether the connection can not be carried over any more.
func (c *Served) IsLost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (c *Served) IsCarrying() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parking
}

// GiveUp parks a connection that its handler has hijacked. insert goes into the head of the request, as a
// complete header line.
func (c *Served) GiveUp(insert string) {
	c.mu.Lock()
	if c.gone || c.lost || c.done {
		c.mu.Unlock()
		_ = c.Close()
		return
	}
	c.done = true
	c.pending = bytes.TrimLeft(c.pending, lineEnds)
	if line := bytes.IndexByte(c.pending, '\n') + 1; insert != "" && line > 0 {
		c.pending = append(append(append([]byte(nil), c.pending[:line]...), insert...), c.pending[line:]...)
	}
	c.mu.Unlock()
	c.roster.park(c)
}

type connKey struct{}

// Under finds our connection under what net/http serves; nil when there is none.
func Under(nc net.Conn) *Served {
	if sealed, ok := nc.(*tls.Conn); ok {
		nc = sealed.NetConn()
	}
	c, _ := nc.(*Served)
	return c
}

func With(ctx context.Context, c *Served) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// Of is the request's connection when it can be carried over; nil when it cannot.
func Of(ctx context.Context) *Served {
	c, _ := ctx.Value(connKey{}).(*Served)
	if c == nil || c.TLS { // whose handshake is over before a request comes
		return nil
	}
	return c
}

// IsTLS reports whether the request came by TLS.
func IsTLS(ctx context.Context) bool {
	c, _ := ctx.Value(connKey{}).(*Served)
	return c != nil && c.TLS
}
