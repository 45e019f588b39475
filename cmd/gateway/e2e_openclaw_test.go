package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/internal/failpoint"
)

const openclawToken = "a-token-for-the-test"

// openclaw is the unmodified command line of OpenClaw, which knows no more of the gateway than its port and its token.
type openclaw struct {
	t       *testing.T
	command []string
	env     []string
}

func newOpenClaw(t *testing.T, address string) *openclaw {
	t.Helper()
	const dir = "testdata/openclaw"
	node := nodeOf(t, dir)
	program, err := filepath.Abs(dir + "/node_modules/openclaw/openclaw.mjs")
	require.NoError(t, err)
	home := t.TempDir()
	// Without a file it takes itself for one that was never set up, and its status asks no gateway.
	require.NoError(t, os.WriteFile(filepath.Join(home, "openclaw.json"), []byte(`{"gateway":{"mode":"local"}}`), 0o600))
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	return &openclaw{t: t, command: []string{node, program}, env: []string{
		"HOME=" + home, "OPENCLAW_STATE_DIR=" + home, "NO_COLOR=1", "DO_NOT_TRACK=1",
		"OPENCLAW_GATEWAY_PORT=" + port, "OPENCLAW_GATEWAY_TOKEN=" + openclawToken,
	}}
}

// start runs a command; the result is what it has printed in the end.
func (o *openclaw) start(args ...string) (result func() string) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), 2*time.Minute)
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, o.command[0], append([]string{o.command[1]}, args...)...)
	cmd.Env = append(os.Environ(), append(o.env, "CI=1")...)
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(o.t, cmd.Start())
	return func() string {
		o.t.Helper()
		defer cancel()
		require.NoError(o.t, cmd.Wait(), "%s: %s", args, &out)
		return out.String()
	}
}

func newOpenClawHouse(t *testing.T, config string, env ...string) (h *house, address string) {
	t.Helper()
	if testing.Short() {
		t.Skip("each of its commands takes seconds")
	}
	h = newHouse(t, "auth: { token: "+openclawToken+" }\n"+config, env...)
	h.start()
	return h, h.waitState("Running").Address
}

// The commands of docs/websocket.md, with a restart before each.
func TestTheCommandsOfOpenClaw(t *testing.T) {
	h, address := newOpenClawHouse(t, "")
	o := newOpenClaw(t, address)
	for _, c := range []struct{ command, want string }{
		{"agent --message hello", "hello"},
		{"agent --session-id one --message hello", "hello"},
		{"agent --session-key desk --message hello --json", `"sessionKey": "agent:main:desk"`},
		{"agent --agent main --message hello", "hello"},
		{"health", "Agents: echo (default)"},
		{"status", "· reachable"},
		{"status --deep", "Gateway  │ reachable"},
		{"gateway health", "OK"},
		{"gateway probe", "Reachable: yes"},
		{"gateway status --require-rpc", "Read probe: ok"},
		{"gateway call health", `"defaultAgentId": "echo"`},
		{"gateway call status", `"byStatus"`},
		{"gateway call gateway.identity.get", "publicKey"},
		{"gateway call gateway.restart.preflight", `"safe": true`},
		{"channels status", "Gateway reachable"},
		{"cron list", "No automations"},
		{"cron status", `"enabled": false`},
		{"nodes status", "Connected: 0"},
		{"system presence", `"mode": "cli"`},
	} {
		_, stderr, code := h.gateway("restart")
		require.Zero(t, code, stderr)
		began := time.Now()
		require.Contains(t, o.start(strings.Fields(c.command)...)(), c.want, c.command)
		t.Logf("%5.1f s  %s", time.Since(began).Seconds(), c.command)
	}
	for want, args := range map[string][]string{
		`"ok": true`:             {"gateway", "call", "gateway.restart.request", "--params", `{"reason":"to see it"}`},
		"safe restart requested": {"gateway", "restart", "--safe"},
	} {
		before := h.waitState("Running")
		require.Contains(t, o.start(args...)(), want)
		h.eventually("the next generation", func() bool {
			s, err := h.status()
			return err == nil && s.State == "Running" && s.BootID != before.BootID
		})
	}
	out, _, _ := h.gateway("turns", "list", "--json")
	require.Equal(t, 4, strings.Count(out, `"status": "completed"`), out)
}

// A message is sent and answered, and another one by the same terminal after a restart. The client calls the agent by
// its own name, and the session too.
func TestOpenClawInATerminal(t *testing.T) {
	h, address := newOpenClawHouse(t, "")
	for name, args := range map[string][]string{"main": {"tui"}, "desk": {"tui", "--session", "desk"}} {
		name := "agent main (echo) | session " + name
		o := newOpenClaw(t, address)
		p := openPane(t, o.env, append(append([]string{"env", "-u", "CI"}, o.command...), args...)...)
		for _, text := range []string{"the first message", "and the second one"} {
			p.await("connected | idle", name)
			p.typed(text)
			p.await(text)
			p.until("an answer to "+text, func(screen string) bool {
				if strings.Count(screen, text) < 2 {
					p.keys("Enter") // one that follows the text too closely is taken for a part of it
				}
				return strings.Count(screen, text) >= 2 && strings.Contains(screen, "connected | idle")
			})
			_, stderr, code := h.gateway("restart")
			require.Zero(t, code, stderr)
		}
		p.keys("C-c")
	}
	out, _, _ := h.gateway("turns", "list", "--json")
	require.Equal(t, 4, strings.Count(out, `"status": "completed"`), "%s", out)
	require.Equal(t, 2, strings.Count(out, `"agent:echo:desk"`), "%s", out)
}

// A command that connects while there is no gateway behind the port waits for it.
func TestAnOpenClawCommandOutlivesARestart(t *testing.T) {
	once := filepath.Join(t.TempDir(), "once")
	h, address := newOpenClawHouse(t, "lifecycle: { respawn: exec }\n", failpoint.Env+"=start.store=stop", failpoint.EnvOnce+"="+once)
	o := newOpenClaw(t, address)
	require.NoError(t, os.WriteFile(once, nil, 0o600))
	h.restartWithoutWaiting()
	h.eventually("the gateway is stopped in its restart", func() bool {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(h.cmd.Process.Pid) + "/stat")
		require.NoError(t, err)
		_, state, _ := bytes.Cut(b, []byte(") "))
		return state[0] == 'T'
	})
	answer := o.start("agent", "--message", "are you there")
	h.eventually("the client is connected", func() bool { return connections(t, address) > 0 })
	h.signal(syscall.SIGCONT)
	require.Contains(t, answer(), "are you there")
}

// connections counts those to a port of this machine that are established.
func connections(t *testing.T, address string) (n int) {
	t.Helper()
	to, err := net.ResolveTCPAddr("tcp", address)
	require.NoError(t, err)
	b, err := os.ReadFile("/proc/net/tcp")
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // number, local and remote address, state
		if port, err := strconv.ParseUint(f[2][max(0, len(f[2])-4):], 16, 16); err == nil && int(port) == to.Port && f[3] == "01" {
			n++
		}
	}
	return n
}

// A restart during a handshake makes the gateway answer that the client should retry, and the command retries.
func TestAnOpenClawCommandIsToldToTryAgain(t *testing.T) {
	h, address := newOpenClawHouse(t, "")
	front, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = front.Close() }()
	challenged, release := make(chan struct{}), make(chan struct{})
	told := make(chan bool, 1) // whether the gateway answered so
	go func() {
		for first := true; ; first = false {
			client, err := front.Accept()
			if err != nil {
				return
			}
			go between(client, address, first, challenged, release, told)
		}
	}()
	o := newOpenClaw(t, front.Addr().String())
	answer := o.start("gateway", "call", "health")
	<-challenged
	witness := dialWebSocket(t, address, openclawToken)
	h.restartWithoutWaiting()
	witness.event(func(f wsFrame) bool { return f.Event == "shutdown" })
	close(release) // a moment is left to send connect
	require.Contains(t, answer(), `"defaultAgentId": "echo"`)
	require.True(t, <-told)
}

// between proxies a connection to the gateway. The first client's bytes after the challenge wait for release.
func between(client net.Conn, address string, first bool, challenged, release chan struct{}, told chan<- bool) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if !first {
		go func() { _, _ = io.Copy(server, client) }()
		_, _ = io.Copy(client, server)
		return
	}
	go func() {
		b := make([]byte, 64<<10)
		for n, err := client.Read(b); err == nil; n, err = client.Read(b) {
			if !bytes.HasPrefix(b[:n], []byte("GET ")) {
				<-release
			}
			_, _ = server.Write(b[:n])
		}
	}()
	var said bytes.Buffer
	b := make([]byte, 64<<10)
	for n, err := server.Read(b); err == nil; n, err = server.Read(b) {
		said.Write(b[:n])
		if challenged != nil && bytes.Contains(said.Bytes(), []byte("connect.challenge")) {
			close(challenged)
			challenged = nil
		}
		_, _ = client.Write(b[:n])
	}
	told <- bytes.Contains(said.Bytes(), []byte("startup-sidecars"))
}
