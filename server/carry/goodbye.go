package carry

import (
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"time"
)

const (
	// goodbyeTime bounds what a connection that nobody serves takes.
	goodbyeTime = 500 * time.Millisecond
	// maxGoodbyes is how many connections beyond the limit are answered at once; the others are closed without an answer.
	maxGoodbyes = 32
	// complaintInterval is how often the log says that connections are refused.
	complaintInterval = 10 * time.Second
)

// bouncer sends away connections that are one too many.
type bouncer struct {
	opts     Options
	goodbyes chan struct{} // one for each that is being answered

	mu   sync.Mutex
	last time.Time         // of a complaint
	sent map[string]uint64 // away, by limit
}

func newBouncer(opts Options) *bouncer {
	return &bouncer{opts: opts, goodbyes: make(chan struct{}, maxGoodbyes), sent: make(map[string]uint64)}
}

// refuse closes the connection, after an answer where that costs little: a TLS handshake would not.
func (b *bouncer) refuse(nc net.Conn, sealed bool, limit string) {
	b.mu.Lock()
	b.sent[limit]++
	due := time.Since(b.last) > complaintInterval
	if due {
		b.last = time.Now()
	}
	b.mu.Unlock()
	if due {
		b.opts.Crowded(limit)
	}
	if sealed {
		_ = nc.Close()
		return
	}
	select {
	case b.goodbyes <- struct{}{}:
	default:
		_ = nc.Close()
		return
	}
	go func() {
		defer func() { <-b.goodbyes }()
		sayUnavailable(nc, b.opts.TooMany(limit))
	}()
}

func (b *bouncer) sentAway() map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.sent)
}

// sayUnavailable answers 503 without reading, and closes the connection. The answer is written by hand: net/http serves
// no connection without a server, and none once its server shuts down.
func sayUnavailable(nc net.Conn, document string) {
	_ = nc.SetDeadline(time.Now().Add(goodbyeTime))
	_, err := fmt.Fprintf(nc, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: 2\r\nConnection: close\r\n\r\n%s", len(document), document)
	closePolitely(nc, err == nil)
}

// awaitClose closes a WebSocket whose client was told to come back, once the client has closed it too.
func awaitClose(nc net.Conn) {
	_ = nc.SetDeadline(time.Now().Add(goodbyeTime))
	closePolitely(nc, true)
}

// closePolitely closes a connection once its client has, when wait says that the client may. Closed at once, with bytes
// of the client unread, the connection would be reset, and the client might never see what was written last.
func closePolitely(nc net.Conn, wait bool) {
	defer func() { _ = nc.Close() }()
	if half, ok := nc.(interface{ CloseWrite() error }); ok && wait && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, nc)
	}
}
