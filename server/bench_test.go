package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/internal/puppet"
	"gateway/internal/wire"
	"gateway/queue"
	"gateway/server/api"
)

// benchGateway serves a queue whose agent answers with its input, on a real socket, and returns its address.
func benchGateway(b *testing.B) string {
	b.Helper()
	s := New(Options{Lifecycle: newMachine(), Version: "bench", Log: zerolog.Nop()})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	serve, err := s.Listen(ln, false)
	require.NoError(b, err)
	served := make(chan error, 1)
	go func() { served <- serve() }()
	q, err := queue.Open(b.Context(), filepath.Join(b.TempDir(), "store.db"), queue.Config{
		Runner: &puppet.Agent{Release: make(chan struct{})}, Lanes: map[string]int{"main": 1000}, MaxAttempts: 3,
		OnInterrupt: queue.RetryTurn, MaxQueued: 100_000, MaxQueuedPerSession: 1000, MaxOutput: 1 << 20,
		Retention: time.Hour, CancelGrace: time.Second, RetryBackoff: time.Second, MaxInput: 1 << 20, Log: zerolog.Nop(),
	})
	require.NoError(b, err)
	s.Publish(&api.Backend{
		Queue: q, Agents: []string{"echo"}, DefaultAgent: "echo", Lanes: []string{"main"}, DefaultLane: "main", MaxInput: 1 << 20,
	})
	q.Resume()
	s.Resume(nil)
	b.Cleanup(func() {
		s.Retire(api.Notice{Reason: "gateway stopping"})
		ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), 10*time.Second) // that of b has ended by now
		defer cancel()
		require.NoError(b, q.Close(ctx))
		require.NoError(b, s.Close(ctx))
		require.NoError(b, <-served)
	})
	return ln.Addr().String()
}

// BenchmarkHTTPTurns is durable full turns over HTTP: each client sends a turn on its kept-alive connection, waits
// for the whole answer and sends the next, in a session of its own. The clients are bare sockets in this process,
// so that what is measured is the gateway, as far as that is possible on the same cores.
func BenchmarkHTTPTurns(b *testing.B) {
	for _, clients := range []int{1, 64, 1000} {
		b.Run("clients="+strconv.Itoa(clients), func(b *testing.B) {
			address := benchGateway(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			b.ResetTimer()
			for i := range clients {
				all.Go(func() {
					if err := sendTurns(address, "session-"+strconv.Itoa(i), &left); err != nil {
						b.Error(err)
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "turns/s")
		})
	}
}

func sendTurns(address, session string, left *atomic.Int64) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	answers := bufio.NewReader(conn)
	const body = `{"input":"hello"}`
	request := fmt.Sprintf("POST /v1/responses HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nX-Session-Id: %s\r\nContent-Length: %d\r\n\r\n%s",
		address, session, len(body), body)
	for left.Add(-1) >= 0 {
		if _, err := io.WriteString(conn, request); err != nil {
			return err
		}
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(answer.Body)
		if err = errors.Join(err, answer.Body.Close()); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK || !strings.Contains(string(text), `"status":"completed"`) {
			return fmt.Errorf("%s: %s", answer.Status, text)
		}
	}
	return nil
}

// BenchmarkWebSocketTurns is the same over WebSocket: chat.send and agent.wait, one turn at a time for each client.
func BenchmarkWebSocketTurns(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run("clients="+strconv.Itoa(clients), func(b *testing.B) {
			address := benchGateway(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			b.ResetTimer()
			for i := range clients {
				all.Go(func() {
					if err := chatTurns(b.Context(), address, i, &left); err != nil {
						b.Error(err)
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "turns/s")
		})
	}
}

// benchSocket is a client that was greeted, and hears of all runs.
func benchSocket(ctx context.Context, address string) (*websocket.Conn, error) {
	ws, _, err := websocket.Dial(ctx, "ws://"+address+"/", nil) //nolint:bodyclose // Dial has read it
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(wire.MaxFrame)
	if _, _, err := ws.Read(ctx); err != nil {
		return nil, err
	}
	if err := ws.Write(ctx, websocket.MessageText, []byte(wire.ConnectFrame(wire.PlainConnect))); err != nil {
		return nil, err
	}
	_, _, err = ws.Read(ctx)
	return ws, err
}

func chatTurns(ctx context.Context, address string, client int, left *atomic.Int64) error {
	ws, err := benchSocket(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = ws.CloseNow() }()
	for n := 0; left.Add(-1) >= 0; n++ {
		key := fmt.Sprintf("%d-%d", client, n)
		send := fmt.Sprintf(`{"type":"req","id":"s","method":"chat.send","params":{"sessionKey":"s%d","message":"hello","idempotencyKey":%q}}`, client, key)
		wait := fmt.Sprintf(`{"type":"req","id":"w","method":"agent.wait","params":{"runId":%q,"timeoutMs":30000}}`, key)
		for _, request := range []string{send, wait} {
			if err := ws.Write(ctx, websocket.MessageText, []byte(request)); err != nil {
				return err
			}
			for {
				_, text, err := ws.Read(ctx)
				if err != nil {
					return err
				}
				if !strings.Contains(string(text), `"type":"res"`) {
					continue
				}
				if !strings.Contains(string(text), `"ok":true`) {
					return errors.New(string(text))
				}
				break
			}
		}
	}
	return nil
}

// BenchmarkIdleWebSockets reports what 5,000 connections that do nothing cost, in bytes of heap and stack each. The
// clients are bare sockets without buffers.
func BenchmarkIdleWebSockets(b *testing.B) {
	const connections = 5000
	for b.Loop() {
		address := benchGateway(b)
		all := make([]net.Conn, connections)
		before := inUse()
		for i := range all {
			var err error
			if all[i], err = bareSocket(address); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC() // stacks shrink by half each time
		b.ReportMetric(float64(inUse()-before)/connections, "B/connection")
		for _, nc := range all {
			_ = nc.Close()
		}
	}
}

// bareSocket is a client that was greeted, by hand.
func bareSocket(address string) (net.Conn, error) {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: "+address+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		return nil, err
	}
	if err := readUntil(nc, "connect.challenge"); err != nil {
		return nil, err
	}
	text := wire.ConnectFrame(wire.PlainConnect)
	frame := []byte{0x81, 0x80 | 126, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0} // masked with nothing
	if _, err := nc.Write(append(frame, text...)); err != nil {
		return nil, err
	}
	return nc, readUntil(nc, `"hello-ok"`)
}

func readUntil(r io.Reader, word string) error {
	seen := make([]byte, 0, 16<<10)
	for !strings.Contains(string(seen), word) {
		n, err := r.Read(seen[len(seen):cap(seen)])
		if err != nil {
			return err
		}
		seen = seen[:len(seen)+n]
	}
	return nil
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
