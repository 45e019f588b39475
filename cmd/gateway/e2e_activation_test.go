package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// fromSystemd finds a tool of systemd. A machine that tests for everyone must have it; see make deps.
func fromSystemd(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("there is no %s here. Try: make deps", tool)
	}
	require.NoError(t, err)
	return path
}

// holder stands in for the part of systemd that holds the port and starts the gateway with it.
type holder struct{ ln *net.TCPListener }

func newHolder(t *testing.T) *holder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	tcp, ok := ln.(*net.TCPListener)
	require.True(t, ok)
	t.Cleanup(func() { _ = tcp.Close() })
	return &holder{tcp}
}

func (s *holder) address() string { return s.ln.Addr().String() }

func (s *holder) start(h *house) {
	h.t.Helper()
	f, err := s.ln.File()
	require.NoError(h.t, err)
	defer func() { _ = f.Close() }()
	h.place = func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ exec "$0" run`, binary(h.t)}
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=gateway")
		cmd.ExtraFiles = []*os.File{f}
	}
	h.start()
}

// served asks over TCP and returns when there is an answer.
func served(t *testing.T, address string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	a, code, err := ask(t.Context(), client, address, "s", "echo", "hello", "", false)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "hello", a.text())
}

func TestASocketOfSystemdStaysThroughRestarts(t *testing.T) {
	tool := fromSystemd(t, "systemd-socket-activate")
	for _, mode := range []string{"exec", "in-process"} {
		t.Run(mode, func(t *testing.T) {
			free := newHolder(t)
			address := free.address()
			require.NoError(t, free.ln.Close())
			h := newHouse(t, "lifecycle: { respawn: "+mode+" }") // its listen differs from the address
			h.place = func(cmd *exec.Cmd) {
				cmd.Path, cmd.Args = tool, []string{
					tool, "--listen=" + address, "--fdname=gateway", "--setenv=GATEWAY_CONFIG=" + h.config, "--setenv=" + raceOptions, binary(h.t), "run",
				}
			}
			h.launch()
			h.eventually("the first connection starts it", func() bool {
				_, _, err := ask(t.Context(), &http.Client{}, address, "s", "echo", "hello", "", false)
				return err == nil
			})
			before := h.waitState("Running")
			require.Equal(t, h.cmd.Process.Pid, before.PID)
			require.Equal(t, address, before.Address)
			restart := func() {
				out, stderr, code := h.gateway("restart")
				require.Zero(t, code, "%s%s", out, stderr)
				require.Equal(t, address, h.waitState("Running").Address)
				served(t, address)
			}
			for range 3 {
				restart()
			}
			// The port is the supervisor's: an address that changes, even to one that is taken, is not taken up.
			taken := newHolder(t)
			text, err := os.ReadFile(h.config)
			require.NoError(t, err)
			changed := strings.Replace(string(text), "listen: 127.0.0.1:0", "listen: "+taken.address(), 1)
			require.NoError(t, os.WriteFile(h.config, []byte(changed), 0o600))
			for range 2 {
				restart()
			}
			require.Contains(t, h.logged(), "the supervisor holds the port")
			require.Equal(t, before.PID, h.waitState("Running").PID)
			h.signal(syscall.SIGTERM)
			require.Equal(t, 0, h.wait())
		})
	}
}

func TestConnectionsWaitAtTheSupervisorsSocket(t *testing.T) {
	s := newHolder(t)
	h := newHouse(t, "lifecycle: { respawn: supervisor }")
	s.start(h)
	for range 3 {
		before := h.waitState("Running")
		require.Equal(t, s.address(), before.Address)
		served(t, s.address())
		_, _, code := h.gateway("restart", "--no-wait")
		require.Zero(t, code)
		require.Equal(t, 75, h.wait())

		nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.address()) // no gateway runs
		require.NoError(t, err)
		_, err = nc.Write([]byte("GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"))
		require.NoError(t, err)
		s.start(h)
		head := make([]byte, len("HTTP/1.1 200"))
		_, err = io.ReadFull(nc, head)
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 200", string(head))
		require.NoError(t, nc.Close())
		require.NotEqual(t, before.PID, h.waitState("Running").PID)
	}
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.address()) // the supervisor still holds it
	require.NoError(t, err)
	require.NoError(t, nc.Close())
}
