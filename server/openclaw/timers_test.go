package openclaw

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/server/api"
)

// hijacked is a request's answer that gives away one end of a pipe.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijacked) Header() http.Header { return http.Header{} }
func (h hijacked) WriteHeader(int)     {}

// Hijack implements http.Hijacker.
func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// piped is a socket of a server without a store, in virtual time, and its client's end.
func piped(t *testing.T) (*socket, *bufio.ReadWriter, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	require.NoError(t, err)
	r.Header = http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	h := New(Options{Retirement: api.NewRetirement(), Log: zerolog.Nop()})
	c := &socket{
		hub: h, request: r, nonce: "n", greeted: make(chan struct{}),
		calls: make(chan struct{}, 1), awaits: make(chan struct{}, 1),
	}
	c.ws, err = c.out.accept(hijacked{conn: ours}, r)
	require.NoError(t, err)
	c.ctx, c.cancel = context.WithCancel(t.Context())
	return c, bufio.NewReadWriter(bufio.NewReader(theirs), bufio.NewWriter(theirs)), theirs
}

// frameOf reads one unmasked frame of at most 125 bytes.
func frameOf(t *testing.T, r *bufio.ReadWriter) (opcode byte, text string) {
	t.Helper()
	head := [2]byte{}
	for i := range head {
		b, err := r.ReadByte()
		require.NoError(t, err)
		head[i] = b
	}
	require.Less(t, head[1], byte(126))
	body := make([]byte, head[1])
	for i := range body {
		b, err := r.ReadByte()
		require.NoError(t, err)
		body[i] = b
	}
	return head[0] & 0x0f, string(body)
}

func TestAClientThatSaysNothingIsClosedAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, client, theirs := piped(t)
		began := time.Now()
		done := make(chan struct{})
		go func() { defer close(done); c.serve() }()
		_, text := frameOf(t, client)
		require.Contains(t, text, "connect.challenge")
		opcode, text := frameOf(t, client)
		require.Equal(t, byte(8), opcode, "a close frame")
		require.Equal(t, connectTime, time.Since(began))
		require.Equal(t, int(websocket.StatusPolicyViolation), int(text[0])<<8|int(text[1]))
		<-done
		require.Less(t, time.Since(began), connectTime+time.Second, "it does not wait long for one who does not answer")
		require.NoError(t, theirs.Close())
	})
}

func TestAClientHearsATickEveryThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, client, theirs := piped(t)
		began := time.Now()
		c.start()
		for i := range 3 {
			_, text := frameOf(t, client)
			require.Contains(t, text, `"event":"tick"`)
			require.Equal(t, time.Duration(i+1)*tickInterval, time.Since(began))
		}
		c.finish()
		require.NoError(t, theirs.Close())
	})
}

// What happens to a run is not told before the client that began it can know that it is its own.
func TestARunIsToldOnceItsClientHasReadTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, client, theirs := piped(t)
		c.out.pong = c.pong
		c.start()
		c.work.Go(func() { _, _ = c.read() })
		began := time.Now()
		c.respond("1", "x", nil)
		read := make(chan struct{})
		wait := c.settled()
		go func() { defer close(read); wait() }()
		opcode, text := frameOf(t, client)
		require.Equal(t, byte(1), opcode, text)
		opcode, text = frameOf(t, client)
		require.Equal(t, byte(9), opcode, text)
		synctest.Wait()
		select {
		case <-read:
			require.Fail(t, "it does not wait")
		default:
		}
		_, err := theirs.Write(append([]byte{0x8a, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...))
		require.NoError(t, err)
		<-read
		require.Equal(t, began, time.Now())

		c.settled()() // the client does not read
		require.Equal(t, settleTime, time.Since(began))
		synctest.Wait()
		require.Empty(t, c.pongs)
		c.settled()            // nobody waits, as for a run that is told already
		time.Sleep(settleTime) // of the bubble
		synctest.Wait()
		require.Empty(t, c.pongs, "what is never answered is forgotten")
		c.finish()
		require.NoError(t, theirs.Close())
	})
}

// A client that takes nothing is given up, also when little waits for it.
func TestAClientThatTakesNothingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, theirs := piped(t)
		began := time.Now()
		c.start()
		c.event("health", "x")
		<-c.ctx.Done()
		require.Equal(t, api.WriteTimeout, time.Since(began))
		c.finish()
		require.NoError(t, theirs.Close())
	})
}
