package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// attack is what hostile clients do at the same time, from one address, until ctx ends or the attack is complete.
type attack struct {
	name string
	// small runs in the suite; large by hand, with GATEWAY_TEST_ATTACKS=1.
	small, large int
	limits       string // of the gateway; empty for the defaults
	begin        func(a *assault, i int)
}

// assault is an attack that is under way.
type assault struct {
	*house
	ctx     context.Context
	address string
	turn    string // has a long answer

	open, refused, cut, sent atomic.Int64 // sent is in bytes
}

var attacks = []attack{
	{"heads, a byte each 100 ms", 50, 1000, "", func(a *assault, _ int) {
		a.drip("", "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 60_000))
	}},
	{"bodies, a byte each 100 ms", 50, 1000, "", func(a *assault, _ int) {
		a.drip(head(1<<20), strings.Repeat(" ", 1<<20))
	}},
	{"silent connections, within the limits", 200, 10_000, "limits: { connections: 20000, connections_per_address: 0 }\n", func(a *assault, _ int) { a.drip("", "") }},
	{"silent connections, the limits at their defaults", 1050, 10_000, "", func(a *assault, _ int) { a.drip("", "") }},
	{"bodies of 1 GiB, of a known length", 2, 8, "", func(a *assault, _ int) { a.pour(head(1<<30), false) }},
	{"bodies of 1 GiB, in chunks", 2, 8, "", func(a *assault, _ int) {
		a.pour("POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", true)
	}},
	{"bodies of 8 MiB that never end", 8, 200, "", func(a *assault, _ int) {
		a.drip(head(8<<20)+strings.Repeat(" ", 8<<20-1000), strings.Repeat(" ", 1000))
	}},
	{"readers of a stream of 4 MB that never read", 50, 1000, "", func(a *assault, _ int) {
		a.drip("GET /v1/turns/"+a.turn+"/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", "")
	}},
	{"WebSockets that never read", 20, 1000, "", func(a *assault, i int) {
		talk := "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" +
			frame(`{"type":"req","id":"1","method":"connect","params":{"minProtocol":4,"maxProtocol":4,"client":{"id":"test","version":"1","platform":"linux","mode":"test"}}}`)
		if i%100 == 0 { // each of them streams these 8 growing answers of 4 MB
			for n := range 8 {
				talk += frame(fmt.Sprintf(`{"type":"req","id":"s","method":"chat.send","params":{"sessionKey":"agent:long:%d","message":"go","idempotencyKey":"%d-%d"}}`, i, i, n))
			}
		}
		a.drip(talk, "")
	}},
}

// frame is text in a WebSocket's frame, masked with nothing.
func frame(text string) string {
	return string([]byte{0x81, 0x80 | 126, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0}) + text
}

func head(length int) string {
	return fmt.Sprintf("POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", length)
}

// TestAttacksHarmNobodyElse has the real program attacked, and asks it meanwhile as anybody would.
// GATEWAY_TEST_ATTACKS=1 makes it large; docs/bench/attacks.md has the figures of such a run.
func TestAttacksHarmNobodyElse(t *testing.T) {
	large := os.Getenv("GATEWAY_TEST_ATTACKS") != ""
	for _, kind := range attacks {
		t.Run(kind.name, func(t *testing.T) {
			h := newHouse(t, kind.limits+"turns: { max_output: 8MiB }\nagents: { long: { type: command, command: [sh, -c, \"yes 'a line of a long answer' | head -c 4000000\"] } }\n")
			h.start()
			s := h.waitState("Running")
			n, most := kind.small, 300.0
			duration := 2 * time.Second
			if large {
				n, most, duration = kind.large, 600, 40*time.Second // longer than any single wait of the gateway
			}
			if raceEnabled {
				most *= 4
			}
			victim := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
			defer victim.CloseIdleConnections()
			a := &assault{house: h, address: s.Address}
			long, _, err := ask(t.Context(), victim, s.Address, "long", "long", "go", "go", false)
			require.NoError(t, err)
			a.turn = long.ID
			before := h.memory(s.PID)

			ctx, cancel := context.WithTimeout(t.Context(), duration)
			defer cancel()
			a.ctx = ctx
			var attackers sync.WaitGroup
			for i := range n {
				attackers.Go(func() { kind.begin(a, i) })
			}
			peak, slowest, asked := before, time.Duration(0), 0
			attacked := make(chan struct{})
			go func() { attackers.Wait(); close(attacked) }()
			for over := false; !over; asked++ {
				select {
				case <-attacked:
					over = true
				default:
				}
				began := time.Now()
				text := fmt.Sprint("turn ", asked)
				got, _, err := ask(t.Context(), victim, s.Address, "victim", "echo", text, text, false)
				require.NoError(t, err, "others are served")
				require.Equal(t, text, got.text())
				fresh := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
				_, _, err = ask(t.Context(), fresh, s.Address, "victim", "echo", text, text, false)
				require.NoError(t, err, "on fresh connections too")
				slowest = max(slowest, time.Since(began))
				peak = max(peak, h.memory(s.PID))
			}
			t.Logf("| %s | %d | %d | %d | %d | %.0f MB | %.0f MB | %.0f MB | %d | %d ms |", kind.name, n, a.open.Load(), a.refused.Load(), a.cut.Load(),
				float64(a.sent.Load())/1e6, before, peak, 2*asked, slowest.Milliseconds())
			require.Less(t, peak, before+most, "megabytes")
			h.stopped()
		})
	}
}

// memory is what a process has resident, in megabytes.
func (h *house) memory(pid int) float64 {
	h.t.Helper()
	proc, err := procfs.NewProc(pid)
	require.NoError(h.t, err)
	status, err := proc.NewStatus()
	require.NoError(h.t, err)
	return float64(status.VmRSS) / 1e6
}

// dial connects from an address that well-behaved clients do not have.
func (a *assault) dial() net.Conn {
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(a.ctx, "tcp", a.address)
	if err != nil {
		if a.ctx.Err() == nil {
			a.refused.Add(1)
		}
		return nil
	}
	_ = c.(*net.TCPConn).SetReadBuffer(4096)
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	return c
}

// drip sends a head whole and the rest a byte at a time, reads nothing, and stays until the gateway closes.
func (a *assault) drip(head, rest string) {
	c := a.dial()
	if c == nil {
		return
	}
	defer func() { _ = c.Close() }()
	a.open.Add(1)
	stop := context.AfterFunc(a.ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := io.WriteString(c, head)
	a.sent.Add(int64(n))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for err == nil {
		select {
		case <-tick.C:
			if rest != "" {
				_, err = io.WriteString(c, rest[:1])
				rest = rest[1:]
			} else if closed(c) {
				err = io.EOF
			}
		case <-a.ctx.Done():
			return
		}
	}
	if a.ctx.Err() == nil {
		a.cut.Add(1)
	}
}

// closed looks whether the other side has closed, without reading.
func closed(c net.Conn) bool {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	is := false
	_ = raw.Control(func(fd uintptr) { is = hungUp(int(fd)) })
	return is
}

// pour sends a body of 1 GiB as fast as it is taken, and reads the answer.
func (a *assault) pour(head string, chunked bool) {
	c := a.dial()
	if c == nil {
		return
	}
	defer func() { _ = c.Close() }()
	a.open.Add(1)
	stop := context.AfterFunc(a.ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answered := make(chan error, 1)
	go func() {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusRequestEntityTooLarge {
				err = errors.New(resp.Status)
			}
		}
		answered <- err
	}()
	block := strings.Repeat(" ", 1<<20)
	if chunked {
		block = fmt.Sprintf("%x\r\n%s\r\n", len(block), block)
	}
	_, err := io.WriteString(c, head)
	for range 1 << 10 {
		if err != nil {
			break
		}
		var n int
		n, err = io.WriteString(c, block)
		a.sent.Add(int64(n))
	}
	if err != nil {
		a.cut.Add(1)
	}
	if err := <-answered; err == nil { // a client that sends on may lose the answer to a reset
		a.refused.Add(1)
	}
}

func hungUp(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0 && poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
