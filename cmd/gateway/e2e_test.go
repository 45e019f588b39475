package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/internal/statedir"
)

// raceOptions keeps a race-enabled program from sleeping a second at its end.
const raceOptions = "GORACE=atexit_sleep_ms=0"

// build makes the real program once; TestMain removes it.
var build = sync.OnceValues(func() (path string, err error) {
	dir, err := os.MkdirTemp("", "gateway-test-")
	if err != nil {
		return "", err
	}
	removeBuilt = func() { _ = os.RemoveAll(dir) }
	path = filepath.Join(dir, "gateway")
	args := []string{"build", "-tags", "failpoints", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(context.Background(), "go", append(args, ".")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return path, nil
})

// removeBuilt removes what build has made.
var removeBuilt = func() {}

// binary is the path of the real program. Only tests that run it wait for it to be built.
func binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	require.NoError(t, err)
	return path
}

// logged is what the instances since the last launch have written to standard error.
func (h *house) logged() string {
	b, err := os.ReadFile(h.log)
	require.NoError(h.t, err)
	return string(b)
}

// house is a state folder with a configuration, in which gateways are run one after another.
type house struct {
	t        *testing.T
	dir      string
	config   string
	env      []string
	program  string          // what launch runs; empty for the real program
	place    func(*exec.Cmd) // where gateways run; nil for beside the test
	cmd      *exec.Cmd
	log      string // a file: a successor writes to it too
	exited   chan struct{}
	http     *http.Client
	instance int
	groups   []int // process groups of all instances
}

func newHouse(t *testing.T, config string, env ...string) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), env: env}
	h.configure(config)
	h.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return statedir.DialSocket(ctx, h.state()) },
	}}
	t.Cleanup(func() {
		h.http.CloseIdleConnections()
		for _, group := range h.groups {
			_ = syscall.Kill(-group, syscall.SIGKILL)
		}
		if h.cmd != nil {
			<-h.exited
		}
		if t.Failed() && h.log != "" {
			t.Logf("the log of the last instance:\n%s", lastLines(h.logged(), 60))
		}
	})
	return h
}

func (h *house) state() string { return filepath.Join(h.dir, "state") }

func (h *house) configure(yaml string) {
	h.t.Helper()
	h.config = filepath.Join(h.dir, "gateway.yaml")
	require.NoError(h.t, os.WriteFile(h.config, []byte("state_dir: "+h.state()+"\nlisten: 127.0.0.1:0\nlog: { format: json, level: debug }\n"+yaml), 0o600))
}

func (h *house) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(h.t.Context(), binary(h.t), args...)
	cmd.Env = append(os.Environ(), "GATEWAY_CONFIG="+h.config, raceOptions)
	return cmd
}

// start runs a gateway and returns once it is Running.
func (h *house) start() {
	h.t.Helper()
	h.launch()
	h.waitState("Running")
}

func (h *house) launch() {
	h.t.Helper()
	h.instance++
	h.log = filepath.Join(h.dir, fmt.Sprintf("log%d", h.instance))
	log, err := os.Create(h.log)
	require.NoError(h.t, err)
	defer func() { _ = log.Close() }()
	h.cmd = h.command("run")
	if h.program != "" {
		h.cmd.Path, h.cmd.Args[0] = h.program, h.program
	}
	h.cmd.Env = append(h.cmd.Env, h.env...)
	h.cmd.Stderr = log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if h.place != nil {
		h.place(h.cmd)
	}
	require.NoError(h.t, h.cmd.Start())
	h.groups = append(h.groups, h.cmd.Process.Pid)
	h.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(h.cmd, h.exited)
}

// wait returns the exit code of the gateway.
func (h *house) wait() int {
	h.t.Helper()
	select {
	case <-h.exited:
	case <-time.After(60 * time.Second):
		h.t.Fatal("the gateway does not end")
	}
	code := h.cmd.ProcessState.ExitCode()
	h.cmd = nil
	return code
}

func (h *house) signal(sig syscall.Signal) {
	h.t.Helper()
	require.NoError(h.t, h.cmd.Process.Signal(sig))
}

type statusJSON struct {
	State       string `json:"state"`
	Ready       bool   `json:"ready"`
	PID         int    `json:"pid"`
	BootID      string `json:"boot_id"`
	Generation  int    `json:"generation"`
	Address     string `json:"address"`
	RespawnMode string `json:"respawn_mode"`
	Turns       struct{ Running, Queued, Stuck int }
	History     []struct {
		From, Event, To, Reason, Actor string
		BootID                         string `json:"boot_id"`
	} `json:"history"`
}

func (h *house) status() (s statusJSON, err error) {
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://gateway/v1/lifecycle", nil)
	if err != nil {
		return s, err
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return s, err
	}
	defer func() { _ = resp.Body.Close() }()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

func (h *house) waitState(state string) (s statusJSON) {
	h.t.Helper()
	h.eventually("state "+state, func() bool {
		var err error
		s, err = h.status()
		return err == nil && s.State == state
	})
	return s
}

func (h *house) eventually(what string, cond func() bool) {
	h.t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			h.t.Fatalf("never came true: %s", what)
		}
	}
}

// gateway runs a command and returns what it printed and its exit code.
func (h *house) gateway(args ...string) (stdout, stderr string, code int) {
	h.t.Helper()
	cmd := h.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if cmd.ProcessState == nil {
		require.NoError(h.t, err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// answer is a response of /v1/responses.
type answer struct {
	ID, Status string
	Output     []struct {
		Content []struct{ Text string }
	}
}

func (a answer) text() string {
	var b strings.Builder
	for _, o := range a.Output {
		for _, c := range o.Content {
			b.WriteString(c.Text)
		}
	}
	return b.String()
}

// ask posts one turn over TCP.
func ask(ctx context.Context, client *http.Client, address, session, agent, input, key string, background bool) (answer, int, error) {
	body, err := json.Marshal(map[string]any{"model": agent, "input": input, "background": background})
	if err != nil {
		return answer{}, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/responses", bytes.NewReader(body))
	if err != nil {
		return answer{}, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Session-Id", session)
	req.Header.Set("Idempotency-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, resp.StatusCode, err
	}
	if resp.StatusCode != http.StatusOK {
		return answer{}, resp.StatusCode, fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	var a answer
	return a, resp.StatusCode, json.Unmarshal(b, &a)
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
