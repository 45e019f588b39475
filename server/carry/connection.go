// Package carry has the client connections of one process, each of which can go on in another one: its listeners, the
// roster of what is open, and the table by which a connection lives. It knows the habits of net/http and WebSockets, and
// neither requests nor turns.
//
// The invariant: at any moment exactly one owner has a connection's socket, and whatever was read from it and not
// answered goes with it. So no request is lost, and none is answered twice.
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
	"slices"
	"sync"
	"time"
)

const (
	// ReplayLimit is how many bytes of an unanswered request are kept. A larger one is served, but cannot be carried.
	ReplayLimit = 32 << 20
	// lineEnds before a request mean nothing (RFC 9112, 2.2).
	lineEnds = "\r\n"
)

// ErrCarried is the error of what is asked of a connection that whoever serves next will answer.
var ErrCarried = errors.New("carry: the connection is carried")

// Connection is a client's connection on its way: from the listener into this process, and from this process to whoever
// serves next. Its JSON is what goes to the next process, which may be of another release.
type Connection struct {
	net.Conn `json:"-"`
	// Local: it came through the control socket.
	Local bool `json:"local"`
	// TLS: the client expects TLS. No handshake was answered, so whoever serves it begins.
	TLS bool `json:"tls,omitempty"`
	// CloseSent: it was a WebSocket, and its client was told to come back over another connection. Only the client's
	// own close is missing.
	CloseSent bool `json:"parted,omitempty"`
	// Unanswered is what was read and not answered: it is read again by whoever serves next.
	Unanswered []byte `json:"read"`
}

// Served is a connection that this process serves. net/http sees nothing else of the client.
type Served struct {
	roster *roster
	from   netip.Prefix

	mu         sync.Mutex
	Connection        // its Unanswered: the request that is read or served, and whatever the client sent behind it
	phase      Phase  // moved by step alone
	facts      Fact   // changed by step alone
	replay     []byte // of what was carried here, what Read has yet to return
}

// step decides what an occurrence does, with mu held. What needs no other lock is done when it returns; the rest is for
// after, without mu.
func (c *Served) step(o Occurrence) *Cell {
	cell := decided[c.phase][o][c.facts]
	if cell.Kind == Impossible {
		c.roster.opts.Impossible(c.phase, o)
		return cell
	}
	c.phase = cell.To
	c.facts = c.facts&^cell.Clears | cell.Sets
	for _, a := range cell.Do {
		switch a {
		case Forget:
			c.Unanswered = nil
		case Interrupt:
			_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
		case Release:
			_ = c.Conn.SetReadDeadline(time.Time{})
		default: // after's, or whoever asked
		}
	}
	return cell
}

// after does what is left of a step.
func (c *Served) after(cell *Cell) (err error) {
	for _, a := range cell.Do {
		switch a {
		case Wake:
			c.roster.wake()
		case Carry:
			c.roster.carry(c)
		case CloseSocket:
			c.roster.remove(c)
			err = c.Conn.Close()
		default: // step's, or whoever asked
		}
	}
	return err
}

func (c *Served) happens(o Occurrence) error {
	c.mu.Lock()
	cell := c.step(o)
	c.mu.Unlock()
	return c.after(cell)
}

func (cell *Cell) does(a Action) bool { return slices.Contains(cell.Do, a) }

// Read remembers what it returns.
func (c *Served) Read(p []byte) (int, error) {
	if n := c.readAgain(p); n > 0 {
		return n, nil
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	// net/http passes over line ends before a request only on the connection that it read a POST from.
	for c.phase == Arrived && n > 0 {
		if text := bytes.TrimLeft(p[:n], lineEnds); len(text) > 0 {
			n = copy(p, text)
			break
		}
		if n = 0; err != nil {
			break
		}
		c.mu.Unlock()
		n, err = c.Conn.Read(p)
		c.mu.Lock()
	}
	if n > 0 && c.step(Read).does(Keep) && !c.facts.Has(Lost) {
		c.Unanswered = append(c.Unanswered, p[:n]...)
		if len(c.Unanswered) > ReplayLimit {
			c.step(Unkept)
		}
	}
	var timeout net.Error
	if err != nil && (!errors.As(err, &timeout) || !timeout.Timeout()) {
		c.step(Ended)
	}
	return n, err
}

// readAgain returns what was carried here.
func (c *Served) readAgain(p []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(p, c.replay)
	if c.replay = c.replay[n:]; n > 0 {
		c.step(Read) // and it is among Unanswered already
	}
	return n
}

// Write answers, or returns ErrCarried where whoever serves next will answer.
func (c *Served) Write(p []byte) (int, error) {
	c.mu.Lock()
	o := Write
	if c.TLS && c.phase != Sealed {
		o = Seal
	}
	cell := c.step(o)
	c.mu.Unlock()
	_ = c.after(cell)
	if cell.does(Refuse) {
		return 0, ErrCarried
	}
	n, err := c.Conn.Write(p)
	if err == nil && isCloseFrame(p) {
		c.closeFrameSent()
	}
	return n, err
}

// isCloseFrame reports whether p would be the frame that closes a WebSocket, if it is one.
func isCloseFrame(p []byte) bool {
	const final, closing = 0x80, 0x8 // RFC 6455, 5.2
	return len(p) > 0 && p[0] == final|closing
}

func (c *Served) closeFrameSent() {
	c.mu.Lock()
	if c.phase != Closing { // it is something else that begins with this byte
		c.mu.Unlock()
		return
	}
	c.CloseSent = true
	cell := c.step(CloseFrameSent)
	c.mu.Unlock()
	_ = c.after(cell)
}

// SetReadDeadline sets the deadline of reads, unless the connection is to be given up by whoever reads.
func (c *Served) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	cell := c.step(Deadline)
	if cell.does(Refuse) {
		return nil
	}
	if cell.does(Stretch) && !t.IsZero() {
		t = time.Now().Add(c.roster.opts.IdleTimeout)
	}
	return c.Conn.SetReadDeadline(t)
}

// Close closes the connection, or has it carried when net/http gives up one that is to be carried.
func (c *Served) Close() error { return c.happens(Close) }

// Begin is for a handler that has a request of the connection.
func (c *Served) Begin() { _ = c.happens(Begin) }

// ReadBody runs read, which reads the body of the request. A restart interrupts it with a timeout.
func (c *Served) ReadBody(read func()) {
	_ = c.happens(BodyBegins)
	defer func() { _ = c.happens(BodyEnds) }()
	read()
}

// Drop is for a request that was refused while it came; the connection ends with the answer.
func (c *Served) Drop() { _ = c.happens(Unkept) }

// Upgraded is for a connection whose upgrade to WebSocket was answered.
func (c *Served) Upgraded() { _ = c.happens(Upgrade) }

// CloseBegins is for a WebSocket that is about to be closed, once no other frames but those of control can be written.
func (c *Served) CloseBegins() { _ = c.happens(CloseBegins) }

// GiveUp is for a handler that has taken the connection from net/http, to be carried. header is a complete header line
// that goes into the request's head; empty for none.
func (c *Served) GiveUp(header string) {
	c.mu.Lock()
	if !final(c.phase) {
		c.Unanswered = bytes.TrimLeft(c.Unanswered, lineEnds)
		if line := bytes.IndexByte(c.Unanswered, '\n') + 1; header != "" && line > 0 {
			c.Unanswered = slices.Concat(c.Unanswered[:line], []byte(header), c.Unanswered[line:])
		}
	}
	cell := c.step(GiveUp)
	c.mu.Unlock()
	_ = c.after(cell)
}

// answered is for a connection whose request net/http has answered: it is forgotten, and what the client sent behind it
// is kept.
func (c *Served) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.facts.Has(Lost) || final(c.phase) { // lost it stays so: net/http may have read some of the next request, and nobody knows how much
		c.step(AnsweredMore)
		return
	}
	rest, err := behindRequest(c.Unanswered)
	if err != nil { // what cannot be told apart from the answered request must not be read again
		c.step(Unkept)
		c.step(AnsweredMore)
		return
	}
	if c.Unanswered = rest; len(rest) > 0 {
		c.step(AnsweredMore)
	} else {
		c.step(Answered)
	}
}

// behindRequest returns a copy of what comes after the first request of b.
func behindRequest(b []byte) ([]byte, error) {
	rest := bytes.NewReader(bytes.TrimLeft(b, lineEnds))
	buffered := bufio.NewReader(rest)
	req, err := http.ReadRequest(buffered)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, req.Body)
	_ = req.Body.Close()
	return bytes.Clone(b[len(b)-rest.Len()-buffered.Buffered():]), err
}

// IsLost reports whether the connection cannot be carried any more, because its request cannot.
func (c *Served) IsLost() bool { return c.knows(Lost) }

// IsCarrying reports whether the connection is to be carried, once nobody here has a request of it.
func (c *Served) IsCarrying() bool { return c.knows(Carrying) }

func (c *Served) knows(f Fact) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts.Has(f)
}

func (c *Served) isIn(ps ...Phase) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(ps, c.phase)
}

type key struct{}

// Under finds our connection under what net/http serves; nil when there is none.
func Under(nc net.Conn) *Served {
	if sealed, ok := nc.(*tls.Conn); ok {
		nc = sealed.NetConn()
	}
	c, _ := nc.(*Served)
	return c
}

// With puts the connection into the context of its requests.
func With(ctx context.Context, c *Served) context.Context { return context.WithValue(ctx, key{}, c) }

// Of is the request's connection when it can be carried; nil when it cannot.
func Of(ctx context.Context) *Served {
	c, _ := ctx.Value(key{}).(*Served)
	if c == nil || c.TLS { // whose handshake is over before a request comes
		return nil
	}
	return c
}

// IsTLS reports whether the request came by TLS.
func IsTLS(ctx context.Context) bool {
	c, _ := ctx.Value(key{}).(*Served)
	return c != nil && c.TLS
}
