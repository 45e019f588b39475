package main

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// notifySocket stands in for systemd: it reads the notification socket as systemd does, and is no more than
// that.
type notifySocket struct {
	mu       sync.Mutex
	messages []string
}

func newNotifySocket(t *testing.T) (*notifySocket, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	s := &notifySocket{}
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := ln.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.messages = append(s.messages, string(buf[:n]))
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() { _ = ln.Close(); reading.Wait() })
	return s, path
}

// order is the sequence of what systemd acts on.
func (s *notifySocket) order() (order []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		first, _, _ := strings.Cut(m, "\n")
		if first == "WATCHDOG=1" || strings.HasPrefix(first, "STATUS=") || strings.HasPrefix(first, "EXTEND_TIMEOUT_USEC=") {
			continue
		}
		order = append(order, first)
	}
	return order
}

func (s *notifySocket) contains(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(strings.Join(s.messages, "\n"), text)
}

func TestASupervisorSeesARestartAsAReload(t *testing.T) {
	for _, mode := range []string{"exec", "in-process"} {
		notify, path := newNotifySocket(t)
		h := newHouse(t, "lifecycle: { respawn: "+mode+" }", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=100000")
		h.start()
		h.eventually("ready", func() bool { return len(notify.order()) == 1 })
		out, stderr, code := h.gateway("restart")
		require.Zero(t, code, "%s%s", out, stderr)
		h.eventually("ready again", func() bool { return len(notify.order()) == 3 })
		h.eventually("signs of life", func() bool { return notify.contains("WATCHDOG=1") })
		h.signal(syscall.SIGTERM)
		require.Equal(t, 0, h.wait())
		require.Equal(t, []string{"READY=1", "RELOADING=1", "READY=1", "STOPPING=1"}, notify.order(), mode)
		require.True(t, notify.contains("MONOTONIC_USEC="))
		require.True(t, notify.contains("EXTEND_TIMEOUT_USEC="))
		require.True(t, notify.contains("STATUS=Stopped"))
	}
}

// The main process sends one message that the successor is the main process now, and ready: a supervisor that accepts
// messages only from the main process accepts the message.
func TestASupervisorIsToldOfASuccessor(t *testing.T) {
	notify, path := newNotifySocket(t)
	h := newHouse(t, "lifecycle: { respawn: spawn }", "NOTIFY_SOCKET="+path)
	h.start()
	require.Contains(t, h.runGateway("status"), "spawn (configured; supervised by systemd")
	out, stderr, code := h.gateway("restart")
	require.Zero(t, code, "%s%s", out, stderr)
	after := h.waitState("Running")
	h.eventually("the main process has changed", func() bool {
		return notify.contains(fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=Running", after.PID))
	})
	require.Equal(t, 0, h.wait())
	out, stderr, code = h.gateway("stop")
	require.Zero(t, code, "%s%s", out, stderr)
	h.eventually("it reports that it stops", func() bool { return slices.Contains(notify.order(), "STOPPING=1") })
	for _, supervisor := range []string{"GATEWAY_SUPERVISED=1", "XPC_SERVICE_NAME=org.example.gateway"} {
		h := newHouse(t, "lifecycle: { respawn: spawn }", supervisor)
		h.start()
		require.Equal(t, "exec", h.waitState("Running").RespawnMode, supervisor)
	}
}

func (h *house) runGateway(args ...string) string {
	h.t.Helper()
	out, stderr, code := h.gateway(args...)
	require.Zero(h.t, code, "%s%s", out, stderr)
	return out
}

func TestSupervisorModeAsksForAFreshStart(t *testing.T) {
	h := newHouse(t, "lifecycle: { respawn: supervisor }")
	h.start()
	before := h.waitState("Running")
	_, _, code := h.gateway("restart", "--no-wait")
	require.Zero(t, code)
	require.Equal(t, 75, h.wait())
	h.start() // as the supervisor does
	require.NotEqual(t, before.PID, h.waitState("Running").PID)
}
