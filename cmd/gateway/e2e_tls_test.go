package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// writePair writes a certificate for 127.0.0.1 and its key to the house, and returns who trusts it.
func (h *house) writePair(name string) *x509.CertPool {
	h.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(h.t, err)
	about := x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &about, &about, private.Public(), private)
	require.NoError(h.t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(h.t, err)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(h.t, os.WriteFile(filepath.Join(h.dir, name+".crt"), cert, 0o600))
	require.NoError(h.t, os.WriteFile(filepath.Join(h.dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	trusted := x509.NewCertPool()
	require.True(h.t, trusted.AppendCertsFromPEM(cert))
	return trusted
}

// tlsClient speaks one version of HTTP. Fresh ones have a connection for each request.
func tlsClient(trusted *x509.CertPool, http2, fresh bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Client{
		Timeout:   60 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, Protocols: protocols, DisableKeepAlives: fresh, MaxIdleConnsPerHost: 16},
	}
}

const tlsConfig = "tls: { cert: a.crt, key: a.key }\nauth: { token: long enough }\nturns: { max_attempts: 100 }\n"

// TestRestartsWithTLSLoseNothing restarts under clients that speak TLS. No client tries again by itself, and the
// requests that net/http sends again for them are counted. GATEWAY_TEST_RESTARTS makes it longer.
func TestRestartsWithTLSLoseNothing(t *testing.T) {
	restarts := envInt(t, "GATEWAY_TEST_RESTARTS", 20)
	h := newHouse(t, tlsConfig+"lanes: { main: { concurrency: 32 } }\nagents: { slow: { type: command, command: [sh, -c, \"sleep 0.1; cat\"] } }\n")
	trusted := h.writePair("a")
	h.start()
	s := h.waitState("Running")
	require.Equal(t, "spawn", s.RespawnMode)

	type count struct{ requests, failed, again, http2, connections atomic.Int64 }
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	counts := map[string]*count{}
	var record history
	for name, kind := range map[string]struct {
		client *http.Client
		agent  string
	}{
		"HTTP/1.1 kept": {tlsClient(trusted, false, false), "echo"}, "HTTP/1.1 kept, slow turns": {tlsClient(trusted, false, false), "slow"},
		"HTTP/1.1 fresh": {tlsClient(trusted, false, true), "echo"},
		"HTTP/2 kept":    {tlsClient(trusted, true, false), "echo"}, "HTTP/2 kept, slow turns": {tlsClient(trusted, true, false), "slow"},
		"HTTP/2 fresh": {tlsClient(trusted, true, true), "echo"},
	} {
		c := &count{}
		counts[name] = c
		t.Cleanup(kind.client.CloseIdleConnections)
		for worker := range 3 {
			clients.Go(func() {
				session := strings.NewReplacer("/", "", " ", "", ",", "", ".", "").Replace(fmt.Sprint(name, worker))
				for i := 0; ctx.Err() == nil; i++ {
					got := 0
					traced := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
						got++
						if !info.Reused {
							c.connections.Add(1)
						}
					}})
					text := fmt.Sprintf("%s %d", session, i)
					a, proto, err := askTLS(traced, kind.client, s.Address, session, kind.agent, text)
					c.requests.Add(1)
					c.again.Add(int64(max(0, got-1)))
					if proto == 2 {
						c.http2.Add(1)
					}
					if err == nil && a.text() != text {
						err = fmt.Errorf("answered %q", a.text())
					}
					if err != nil {
						c.failed.Add(1)
						t.Logf("%s: %v", name, err)
						continue
					}
					record.acknowledged(a.ID, session, text)
				}
			})
		}
	}
	for range restarts {
		before := counts["HTTP/1.1 kept"].requests.Load()
		h.eventually("the load continues", func() bool { return counts["HTTP/1.1 kept"].requests.Load() > before+3 })
		out, stderr, code := h.gateway("restart")
		require.Zero(t, code, "%s%s", out, stderr)
	}
	stop()
	clients.Wait()
	for name, c := range counts {
		t.Logf("%-26s %5d requests, %d failed, %d sent again by net/http, %d by HTTP/2, %d connections", name,
			c.requests.Load(), c.failed.Load(), c.again.Load(), c.http2.Load(), c.connections.Load())
		require.Zero(t, c.failed.Load(), name)
		require.Equal(t, strings.HasPrefix(name, "HTTP/2"), c.http2.Load() > 0, name)
	}
	h.eventually("all predecessors have left", func() bool { return len(h.alive()) == 1 })
	h.judge(&record)
	h.stopped()
}

// stopped stops the process that is the gateway now.
func (h *house) stopped() {
	h.t.Helper()
	_, stderr, code := h.gateway("stop")
	require.Zero(h.t, code, stderr)
	h.eventually("nobody is left", func() bool { return len(h.alive()) == 0 })
	h.cmd = nil
}

// askTLS posts one turn and waits for its answer.
func askTLS(ctx context.Context, client *http.Client, address, session, agent, text string) (a answer, proto int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+"/v1/responses", strings.NewReader(fmt.Sprintf(`{"model":%q,"input":%q}`, agent, text)))
	if err != nil {
		return a, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer long enough")
	req.Header.Set("X-Session-Id", session)
	req.Header.Set("Idempotency-Key", text)
	resp, err := client.Do(req)
	if err != nil {
		return a, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return a, resp.ProtoMajor, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, resp.ProtoMajor, fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	return a, resp.ProtoMajor, json.Unmarshal(b, &a)
}

// A request over TLS from before a restart is answered after several restarts by the serving process. The process that
// holds the connection stays only for the answer.
func TestARequestByTLSOutlivesSeveralRestarts(t *testing.T) {
	release := filepath.Join(t.TempDir(), "release")
	h := newHouse(t, tlsConfig+"lifecycle: { drain_timeout: 2s }\nagents: { held: { type: command, command: [sh, -c, \"until test -e "+release+"; do sleep 0.05; done; cat\"] } }\n")
	trusted := h.writePair("a")
	h.start()
	s := h.waitState("Running")
	answers := make(chan error, 2)
	for _, http2 := range []bool{false, true} {
		client := tlsClient(trusted, http2, false)
		t.Cleanup(client.CloseIdleConnections)
		go func() {
			text := fmt.Sprint("by HTTP/2: ", http2)
			a, _, err := askTLS(t.Context(), client, s.Address, text, "held", text)
			if err == nil && a.text() != text {
				err = fmt.Errorf("answered %q", a.text())
			}
			answers <- err
		}()
	}
	h.waitRunning(2)
	for range 3 {
		out, stderr, code := h.gateway("restart")
		require.Zero(t, code, "%s%s", out, stderr)
	}
	require.True(t, alive(s.PID), "it has the connections")
	require.NoError(t, os.WriteFile(release, nil, 0o600))
	require.NoError(t, <-answers)
	require.NoError(t, <-answers)
	h.eventually("it has left", func() bool { return !alive(s.PID) })
	h.stopped()
}

// The minimum of a hand-over with TLS: a client that waits while the gateway is killed, and repeats the request, has one
// turn.
func TestARequestByTLSIsRepeatedAfterAKill(t *testing.T) {
	h := newHouse(t, tlsConfig+"agents: { slow: { type: command, command: [sh, -c, \"sleep 1; cat\"] } }\n")
	trusted := h.writePair("a")
	h.start()
	s := h.waitState("Running")
	client := tlsClient(trusted, true, false)
	defer client.CloseIdleConnections()
	first := make(chan error, 1)
	go func() {
		_, _, err := askTLS(t.Context(), client, s.Address, "s", "slow", "once")
		first <- err
	}()
	h.waitRunning(1)
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGKILL))
	require.Error(t, <-first)
	h.wait()
	h.start()
	a, _, err := askTLS(t.Context(), client, h.waitState("Running").Address, "s", "slow", "once")
	require.NoError(t, err)
	require.Equal(t, "once", a.text())
	require.Equal(t, 2, h.turn(a.ID).Attempt, "the turn that was accepted first")
	h.stopped()
}

// Idle connections are closed without an error in their protocol.
func TestIdleTLSConnectionsEndPolitely(t *testing.T) {
	h := newHouse(t, tlsConfig)
	trusted := h.writePair("a")
	h.start()
	s := h.waitState("Running")
	idle, err := tls.Dial("tcp", s.Address, &tls.Config{RootCAs: trusted, NextProtos: []string{"http/1.1"}})
	require.NoError(t, err)
	defer func() { _ = idle.Close() }()
	require.NoError(t, idle.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(idle, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	untouched, err := net.Dial("tcp", s.Address) // its handshake comes after the restart
	require.NoError(t, err)
	out, stderr, code := h.gateway("restart")
	require.Zero(t, code, "%s%s", out, stderr)
	late := tls.Client(untouched, &tls.Config{RootCAs: trusted, ServerName: "127.0.0.1"})
	defer func() { _ = late.Close() }()
	require.NoError(t, late.SetDeadline(time.Now().Add(time.Minute)))
	require.NoError(t, late.Handshake(), "it was carried over")
	answer, err := io.ReadAll(idle)
	require.NoError(t, err, "close_notify, and no reset")
	require.Contains(t, string(answer), "HTTP/1.1 200 OK")
	h.eventually("the predecessor has left", func() bool { return !alive(s.PID) })
	h.stopped()
}

// A WebSocket client gets the event of the restart, and connects again.
func TestAWebSocketByTLSIsToldOfARestart(t *testing.T) {
	h := newHouse(t, tlsConfig)
	trusted := h.writePair("a")
	h.start()
	s := h.waitState("Running")
	client := tlsClient(trusted, false, false)
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	connect := func() *websocket.Conn {
		ws, _, err := websocket.Dial(ctx, "wss://"+s.Address+"/", &websocket.DialOptions{HTTPClient: client}) //nolint:bodyclose // it is the connection
		require.NoError(t, err)
		_, challenge, err := ws.Read(ctx)
		require.NoError(t, err)
		require.Contains(t, string(challenge), "connect.challenge")
		return ws
	}
	ws := connect()
	out, stderr, code := h.gateway("restart")
	require.Zero(t, code, "%s%s", out, stderr)
	_, _, err := ws.Read(ctx)
	require.Equal(t, websocket.StatusTryAgainLater, websocket.CloseStatus(err), "%v", err) // it had not connected yet
	_ = connect().CloseNow()
	h.eventually("the predecessor has left", func() bool { return !alive(s.PID) })
	h.stopped()
}

// A certificate is read with a restart, and a pair that does not fit calls the restart off before anything stops.
func TestACertificateIsTakenWithARestart(t *testing.T) {
	for mode, env := range map[string]string{"spawn": "GATEWAY_TEST_NOTHING=1", "in-process": "GATEWAY_NO_RESPAWN=1"} {
		t.Run(mode, func(t *testing.T) {
			h := newHouse(t, tlsConfig, env)
			old := h.writePair("a")
			h.start()
			s := h.waitState("Running")
			require.Equal(t, mode, s.RespawnMode)
			ask := func(trusted *x509.CertPool, key string) error {
				client := tlsClient(trusted, true, true)
				defer client.CloseIdleConnections()
				_, _, err := askTLS(t.Context(), client, s.Address, "s", "echo", key)
				return err
			}
			require.NoError(t, ask(old, "one"))

			require.NoError(t, os.WriteFile(filepath.Join(h.dir, "a.key"), []byte("broken"), 0o600))
			_, stderr, code := h.gateway("check")
			require.Equal(t, 78, code)
			require.Contains(t, stderr, "gateway.yaml:4:1: tls: ")
			require.Contains(t, stderr, "are not a certificate and its key")
			_, stderr, code = h.gateway("restart")
			require.Equal(t, 1, code)
			require.Contains(t, stderr, "called off")
			require.Contains(t, stderr, "are not a certificate and its key")
			require.NoError(t, ask(old, "two"))
			require.Equal(t, s.BootID, h.waitState("Running").BootID)

			fresh := h.writePair("a")
			require.NoError(t, ask(old, "three"), "not before the restart")
			out, stderr, code := h.gateway("restart")
			require.Zero(t, code, "%s%s", out, stderr)
			require.NoError(t, ask(fresh, "four"))
			require.ErrorContains(t, ask(old, "five"), "certificate")

			require.NoError(t, os.Chmod(filepath.Join(h.dir, "a.key"), 0o644))
			_, stderr, code = h.gateway("check")
			require.Zero(t, code)
			require.Contains(t, stderr, "warning: ")
			require.Contains(t, stderr, "every user of this machine can open")
			h.stopped()
		})
	}
}

// What a connection began with it keeps, when TLS is turned on or off; it is asked to begin again.
func TestTLSIsTurnedOnAndOffByARestart(t *testing.T) {
	const plain = "auth: { token: long enough }\n"
	h := newHouse(t, plain)
	trusted := h.writePair("a")
	h.start()
	s := h.waitState("Running")
	require.Equal(t, "exec", s.RespawnMode)
	kept := &http.Client{Transport: &http.Transport{}}
	defer kept.CloseIdleConnections()
	models := func(client *http.Client, scheme string) (closes, reused bool, err error) {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+s.Address+"/v1/models", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer long enough")
		resp, err := client.Do(req)
		if err != nil {
			return false, reused, err
		}
		defer func() { _ = resp.Body.Close() }()
		_, err = io.Copy(io.Discard, resp.Body)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		return resp.Close, reused, err
	}
	_, _, err := models(kept, "http")
	require.NoError(t, err)

	h.configure(tlsConfig)
	_, stderr, code := h.gateway("restart")
	require.Zero(t, code, stderr)
	require.Equal(t, "spawn", h.waitState("Running").RespawnMode)
	closes, reused, err := models(kept, "http")
	require.NoError(t, err)
	require.True(t, reused && closes, "carried over, and asked to begin again")
	sealed := tlsClient(trusted, false, false)
	defer sealed.CloseIdleConnections()
	_, _, err = models(sealed, "https")
	require.NoError(t, err)

	h.configure(plain)
	_, stderr, code = h.gateway("restart")
	require.Zero(t, code, stderr)
	require.Equal(t, "exec", h.waitState("Running").RespawnMode)
	_, _, err = models(kept, "http")
	require.NoError(t, err)
	h.stopped()
}
