package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/server/api"
	"gateway/server/carry"
)

func TestAConnectionFollowsWithItsAnswer(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	begun, finish := make(chan struct{}), make(chan struct{})
	old := newImage(t, "old", ln, func(w http.ResponseWriter, _ *http.Request, _ *api.Backend) error {
		close(begun)
		<-finish
		_, err := io.WriteString(w, "old")
		return err
	})
	old.Resume(nil)
	c := dial(t, ln)
	c.send(post("/slow", "question") + get("/behind"))
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.Empty(t, old.Carry(ctx))
	close(finish)
	require.Equal(t, "old", c.receive())
	carried := old.took(old.CarryNext(t.Context()))
	require.Len(t, carried, 1)
	require.Empty(t, old.CarryNext(t.Context()), "nothing else is open")
	next := newImage(t, "new", ln, nil)
	next.Resume(carried)
	require.Equal(t, "new /behind ", c.receive())
}

func TestAConnectionWhoseClientLeftIsClosedAndNotCarried(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "old", ln, nil)
	s.Resume(nil)
	s.stage.set(fsm.Held)
	c := dial(t, ln)
	c.send(post("/held", "question"))
	waitFor(t, func() bool { return s.gate.held.Load() == 1 })
	require.NoError(t, c.Close())
	waitFor(t, func() bool { return s.gate.held.Load() == 0 })
	waitFor(t, func() bool { return s.Stats().Connections == 0 })
	require.Empty(t, s.Carry(t.Context()))
}

// net/http answers this request itself, and no handler of ours sees it.
func TestARequestThatNoHandlerSeesIsNotReplayed(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	old := newImage(t, "old", ln, nil)
	old.Resume(nil)
	c := dial(t, ln)
	c.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.Empty(t, c.receive())
	c.send(post("/one", "1"))
	require.Equal(t, "old /one 1", c.receive())
	carried := old.Carry(t.Context())
	require.Len(t, carried, 1)
	require.Empty(t, carried[0].Unanswered)
	next := newImage(t, "new", ln, nil)
	next.Resume(carried)
	c.send(get("/two"))
	require.Equal(t, "new /two ", c.receive())
}

func TestWhatIsNoRequestIsAnsweredAndClosed(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "one", ln, nil)
	s.Resume(nil)
	c := dial(t, ln)
	c.send("nonsense\r\n\r\n")
	require.Contains(t, c.receive(), "400 Bad Request")
	waitFor(t, func() bool { return s.Stats().Connections == 0 })
}

func TestARequestWhoseBodyIsTooLargeIsNotCarried(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "one", ln, nil)
	s.Publish(&api.Backend{MaxInput: 1})
	s.Resume(nil)
	c := dial(t, ln)
	const chunk = "10\r\n0123456789abcdef\r\n"
	const head = "POST /large HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
	c.send(head)
	ln.came(c, len(head))
	c.send(strings.Repeat(chunk, int(s.bodyLimit())/16+1) + "1\r\nx\r\n0\r\n\r\n")
	require.Contains(t, c.receive(), "too_large")
	waitFor(t, func() bool { return s.Stats().Connections == 0 })
	require.Empty(t, s.Carry(t.Context()))
}

func TestAConnectionWithoutARequestEndsAtOnceWithTheServer(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	s := newImage(t, "one", ln, nil)
	s.Resume(nil)
	c := dial(t, ln)
	waitFor(t, func() bool { return s.Stats().Connections == 1 })
	require.NoError(t, s.Close(t.Context()))
	_, err := c.r.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

// What net/http calls a new connection has 30 seconds for its first request; one that was carried here between two
// requests has what it would have had there.
func TestACarriedConnectionMayStayIdle(t *testing.T) {
	for name, c := range map[string]struct {
		open func(s *Server, p *pipes) net.Conn
		want time.Duration
	}{
		"new":          {func(_ *Server, p *pipes) net.Conn { return p.dial() }, readHeaderTimeout},
		"carried idle": {func(s *Server, _ *pipes) net.Conn { return carriedTo(s, "") }, idleTimeout},
		"carried with half a request": {
			func(s *Server, _ *pipes) net.Conn { return carriedTo(s, "GET / HT") }, readHeaderTimeout,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(s *Server, p *pipes) {
				began := time.Now()
				nc := c.open(s, p)
				_, err := io.Copy(io.Discard, nc)
				require.NoError(t, err)
				require.InDelta(t, c.want.Seconds(), time.Since(began).Seconds(), 1)
				require.NoError(t, nc.Close())
			})
		})
	}
}

func carriedTo(s *Server, read string) net.Conn {
	ours, theirs := net.Pipe()
	s.Adopt(carry.Connection{Conn: theirs, Unanswered: []byte(read)})
	return ours
}

// certificate is for 127.0.0.1.
func certificate(t *testing.T) *tls.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	about := x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, &about, &about, private.Public(), private)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// clientHello is what a client of TLS sends first.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: "localhost"}).HandshakeContext(t.Context())
	}()
	b := make([]byte, 1<<12)
	n, err := ours.Read(b)
	require.NoError(t, err)
	require.NoError(t, ours.Close())
	return b[:n]
}

func TestATLSConnectionIsCarriedUntilItsHandshakeIsAnswered(t *testing.T) {
	ln := newIngress(t)
	secure := &api.Backend{MaxInput: 1 << 20, Certificate: certificate(t)}
	old := newImage(t, "old", ln, nil)
	old.Publish(secure)
	old.Resume(nil)
	answered, begins, silent := dial(t, ln), dial(t, ln), dial(t, ln)
	sealed := tls.Client(answered, &tls.Config{InsecureSkipVerify: true})
	_, err := io.WriteString(sealed, get("/first"))
	require.NoError(t, err)
	answer := make([]byte, len("HTTP/1.1 200 OK"))
	_, err = io.ReadFull(sealed, answer)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 200 OK", string(answer))
	hello := clientHello(t)
	begins.send(string(hello[:50]))
	waitFor(t, func() bool { return old.Stats().Connections == 3 })
	ln.came(begins, 50)

	carried := old.Carry(t.Context())
	require.Len(t, carried, 2)
	require.Equal(t, 1, old.Sealed())
	for _, c := range carried {
		require.True(t, c.TLS)
		if len(c.Unanswered) > 0 {
			require.Equal(t, hello[:50], c.Unanswered)
		}
	}
	next := newImage(t, "new", ln, nil)
	next.Publish(secure)
	next.Resume(carried)
	begins.send(string(hello[50:]))
	record := make([]byte, 1)
	_, err = begins.r.Read(record)
	require.NoError(t, err)
	const handshake = 22 // RFC 8446, 5.1
	require.EqualValues(t, handshake, record[0], "the handshake is answered")
	late := tls.Client(silent, &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, late.HandshakeContext(t.Context()))
	require.NoError(t, sealed.Close())
}

// A WebSocket is not carried; but a restart does not wait for a client that has been told to come back.
func TestAWebSocketThatIsToldToComeBackIsLeftToItsClient(t *testing.T) {
	ln := newIngress(t)
	defer ln.compare()
	opened, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	old := newImage(t, "old", ln, func(w http.ResponseWriter, r *http.Request, _ *api.Backend) error {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return err
		}
		c := carry.Of(r.Context())
		c.Upgraded()
		go func() {
			defer close(left)
			close(opened)
			<-leave
			c.CloseBegins()
			_ = ws.Close(websocket.StatusServiceRestart, "service restart")
		}()
		return nil
	})
	old.Resume(nil)
	c := dial(t, ln)
	c.send("GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil) //nolint:bodyclose // there is none
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	<-opened
	taken := make(chan []carry.Connection, 1)
	go func() { taken <- old.Carry(t.Context()) }()
	ln.saw(c, "carrying begins")
	close(leave)
	carried := <-taken
	require.Len(t, carried, 1)
	require.True(t, carried[0].CloseSent)
	text, err := io.ReadAll(io.LimitReader(c.r, int64(len("..\x03\xf4service restart"))))
	require.NoError(t, err)
	require.Equal(t, "\x88\x11\x03\xf4service restart", string(text))
	old.Resume(carried)
	_, err = c.r.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, c.Close())
	<-left
	old.Server.ingress.AwaitClosing()
}
