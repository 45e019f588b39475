package openclaw

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"gateway/server/api"
)

// Frames towards clients are written here, many with one system call, and not by the library, which does the
// handshake, reads, and answers pings and closes. A connection that has nothing to say has no goroutine and no buffer
// for it.

const (
	// batchSize is how many bytes of frames are written at once, unless one frame has more.
	batchSize = 32 << 10
	// socketReadBuffer and socketControlBuffer are what the library gets: it reads larger frames past the one, and
	// writes nothing but pongs and closes through the other.
	socketReadBuffer    = 512
	socketControlBuffer = 256
	// settleTime is how long what happens to a run is kept back at most, until who began it has read the answer. A client
	// on a busy machine may take a while; one that never answers a ping waits as long for each of its runs.
	settleTime = 2 * time.Second
)

// The first bytes of frames, each of which is a whole message.
const (
	opText = 0x81
	opPing = 0x89
)

// outgoing is a message that waits for a client. Of an event, text is shared by all who are told it, and lacks the number and
// the closing brace.
type outgoing struct {
	text []byte
	seq  int64 // 0 for none
	ping bool  // the text is that of a ping
}

// appendTo appends the message as a WebSocket frame, but not a text that is large: rest has to follow then.
func (m outgoing) appendTo(b []byte) (frame, rest, tail []byte) {
	var end [32]byte
	tail = end[:0]
	if m.seq > 0 {
		tail = append(strconv.AppendInt(append(tail, `,"seq":`...), m.seq, 10), '}')
	}
	b = append(b, opText)
	if m.ping {
		b[len(b)-1] = opPing
	}
	switch n := len(m.text) + len(tail); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	if len(m.text) > batchSize {
		return b, m.text, tail
	}
	return append(append(b, m.text...), tail...), nil, nil
}

// framed is the connection under a WebSocket. Whole frames are written one after another, whoever writes them.
type framed struct {
	net.Conn
	pong func(payload string)

	mu     sync.Mutex
	closed bool // a close frame was written: nothing may follow
}

// Write is for the library, each of whose control frames is one call.
func (f *framed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = f.closed || len(p) > 0 && p[0] == 0x88
	return f.write(p)
}

// write gives the client writeTimeout. Needs the lock.
func (f *framed) write(p []byte) (int, error) {
	if err := f.SetWriteDeadline(time.Now().Add(api.WriteTimeout)); err != nil {
		return 0, err
	}
	return f.Conn.Write(p)
}

var batches = sync.Pool{New: func() any { b := make([]byte, 0, 2*batchSize); return &b }}

// send writes messages. The client has writeTimeout for each batch, or large message.
func (f *framed) send(all []outgoing) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	pooled, _ := batches.Get().(*[]byte)
	defer batches.Put(pooled)
	b := (*pooled)[:0]
	for _, m := range all {
		var rest, tail []byte
		b, rest, tail = m.appendTo(b)
		if rest != nil {
			for _, part := range [][]byte{b, rest} {
				if _, err := f.write(part); err != nil {
					return err
				}
			}
			b = append(b[:0], tail...)
		}
	}
	if len(b) == 0 {
		return nil
	}
	_, err := f.write(b)
	return err
}

// upgrading gives the library a connection with small buffers.
type upgrading struct {
	http.ResponseWriter
	out *framed
}

// Hijack implements http.Hijacker.
func (u upgrading) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.out.Conn = nc
	early, err := rw.Peek(rw.Reader.Buffered()) // what the client sent behind its request
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(bytes.NewReader(bytes.Clone(early)), max(socketReadBuffer, len(early)))
	_, err = r.Peek(len(early)) // the library goes on with nc behind it
	return u.out, bufio.NewReadWriter(r, bufio.NewWriterSize(u.out, socketControlBuffer)), err
}

// accept upgrades the connection; when it cannot, it has answered.
func (f *framed) accept(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	return websocket.Accept(upgrading{w, f}, r, &websocket.AcceptOptions{
		CompressionMode: websocket.CompressionDisabled,
		OnPongReceived: func(_ context.Context, payload []byte) {
			if f.pong != nil {
				f.pong(string(payload))
			}
		},
	})
}

// queue puts a message in line. It never waits: a client that does not read is closed, and slows nobody.
func (c *socket) queue(text []byte, numbered, now bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queueLocked(text, numbered, now)
}

// queueOf puts an event of a turn in line, unless the client is told that turn by chat.resume.
func (c *socket) queueOf(turn string, text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.resumed[turn] {
		c.queueLocked(text, true, false)
	}
}

func (c *socket) queueLocked(text []byte, numbered, now bool) {
	if c.ended {
		return
	}
	m := outgoing{text: text}
	if numbered {
		c.seq++
		m.seq = c.seq
	}
	if c.lineUpLocked(m) && now {
		c.wakeLocked()
	}
}

func (c *socket) lineUpLocked(m outgoing) bool {
	if c.buffered += len(m.text); c.buffered > maxBuffered {
		c.cancel()
		return false
	}
	c.waiting = append(c.waiting, m)
	return true
}

// settled asks the client for a sign that it has read what is in line, and returns what waits for that, for at most
// settleTime. Clients get what comes together at once, and take events of a run for somebody else's while they have not
// come to the answer yet that says that it is theirs.
func (c *socket) settled() (wait func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pings++
	payload, pong := strconv.FormatInt(c.pings, 10), make(chan struct{})
	if c.pongs == nil {
		c.pongs = map[string]chan struct{}{}
	}
	c.pongs[payload] = pong
	if !c.ended && c.lineUpLocked(outgoing{text: []byte(payload), ping: true}) {
		c.wakeLocked()
	}
	time.AfterFunc(settleTime, func() { c.pong(payload) }) // also when nobody waits, or the client never answers
	retiring := c.hub.opts.Retirement.Begun()
	return func() {
		select {
		case <-pong:
		case <-retiring: // a restart waits for nobody's sign
		case <-c.ctx.Done():
		}
	}
}

// pong takes the sign of the client.
func (c *socket) pong(payload string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pong, ok := c.pongs[payload]; ok {
		close(pong)
		delete(c.pongs, payload)
	}
}

// wake has what is in line written.
func (c *socket) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked()
}

func (c *socket) wakeLocked() {
	if c.flushing || c.ended || len(c.waiting) == 0 {
		return
	}
	c.flushing = true
	c.ends.Go(func() {
		for {
			whole := c.flush()
			c.mu.Lock()
			if c.flushing = whole && len(c.waiting) > 0; !c.flushing {
				c.mu.Unlock()
				if !whole {
					c.cancel()
				}
				return
			}
			c.mu.Unlock()
		}
	})
}

// flush writes all that is in line; false when the client does not take it.
func (c *socket) flush() bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	for {
		all, size := c.next()
		if len(all) == 0 {
			return true
		}
		err := c.out.send(all)
		c.mu.Lock()
		c.buffered -= size
		c.makeRoomLocked()
		c.mu.Unlock()
		if err != nil {
			return false
		}
	}
}

// next takes a batch of what is in line.
func (c *socket) next() (all []outgoing, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.waiting {
		if size > 0 && size+len(m.text) > batchSize {
			break
		}
		size += len(m.text)
		all = c.waiting[:len(all)+1]
	}
	if c.waiting = c.waiting[len(all):]; len(c.waiting) == 0 {
		c.waiting = nil
	}
	return all, size
}
