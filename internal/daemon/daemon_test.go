package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/internal/config"
	"gateway/internal/statedir"
	"gateway/queue"
)

// noSignals is a process that gets none.
type noSignals struct{}

func (noSignals) Quiesce() func() { return func() {} }
func (noSignals) Close()          {}

// running is a gateway in this process, on a real store, real sockets and the agent echo.
type running struct {
	*Daemon
	t    *testing.T
	stop context.CancelCauseFunc
	done chan struct{}
	code fsm.ExitCode
	err  error
	log  *lines
}

// lines is a log that tests may read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// sourceIn is a configuration file with a state folder beside it.
func sourceIn(t *testing.T, dir, yaml string) config.Source {
	t.Helper()
	file := filepath.Join(dir, "gateway.yaml")
	require.NoError(t, os.WriteFile(file, []byte("state_dir: "+filepath.Join(dir, "state")+"\nlisten: 127.0.0.1:0\nlog: { format: json, level: debug }\n"+yaml), 0o600))
	return config.Source{File: file}
}

// newIn makes a gateway that has started nothing yet.
func newIn(t *testing.T, dir, yaml string, system system) (*Daemon, *lines) {
	t.Helper()
	source, log := sourceIn(t, dir, yaml), &lines{}
	loaded, err := config.Load(source)
	require.NoError(t, err)
	system.signals = func(func(os.Signal), ...os.Signal) signals { return noSignals{} }
	d, err := wire(Options{Source: source, Argv: os.Args, Version: "test", Out: io.Discard, Err: log}, loaded, Arrival{}, system)
	require.NoError(t, err)
	require.NoError(t, d.drive(d.effects()))
	return d, log
}

func runIn(t *testing.T, dir, yaml string, system system) *running {
	t.Helper()
	d, log := newIn(t, dir, yaml, system)
	ctx, stop := context.WithCancelCause(context.Background())
	r := &running{Daemon: d, t: t, stop: stop, done: make(chan struct{}), log: log}
	go func() {
		defer close(r.done)
		r.code, r.err = d.Run(ctx)
	}()
	t.Cleanup(func() {
		stop(errors.New("the test is over"))
		<-r.done
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return r
}

// await waits until the published snapshot is as the test wants it.
func (r *running) await(what string, ok func(fsm.Snapshot) bool) fsm.Snapshot {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for {
		changed := r.machine.Changed()
		if s := r.machine.Snapshot(); ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("never came true: %s", what)
		}
	}
}

func (r *running) awaitRunning(generation int) fsm.Snapshot {
	r.t.Helper()
	return r.await("Running", func(s fsm.Snapshot) bool { return s.State == fsm.Running && s.Generation == generation })
}

// ask sends a turn over the control socket and returns the answer.
func (r *running) ask(input string) string {
	r.t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return statedir.DialSocket(ctx, r.config().StateDir)
		},
	}}
	body, err := json.Marshal(map[string]any{"input": input})
	require.NoError(r.t, err)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, "http://gateway/v1/responses", bytes.NewReader(body))
	require.NoError(r.t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	require.NoError(r.t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	require.Equal(r.t, http.StatusOK, resp.StatusCode, string(b))
	return string(b)
}

func TestAGatewayRunsInsideAnyProcess(t *testing.T) {
	dir := t.TempDir()
	r := runIn(t, dir, "lifecycle: { respawn: in-process }\n", realSystem())
	r.awaitRunning(0)
	require.Contains(t, r.ask("hello"), "hello")

	_, err := r.machine.Request(t.Context(), fsm.Request{Event: fsm.Restart, Actor: "test"})
	require.NoError(t, err)
	r.awaitRunning(1)
	require.Contains(t, r.ask("again"), "again")
	require.Equal(t, owner, r.handover.current())

	r.stop(errors.New("enough"))
	<-r.done
	require.Equal(t, fsm.ExitOK, r.code)
	require.NoError(t, r.err)
	require.Equal(t, "enough", r.machine.Hops(0)[len(r.machine.Hops(0))-2].Reason)
	require.False(t, statedir.Owned(filepath.Join(dir, "state")), "the lock is free")
	require.NotContains(t, r.log.String(), "not everything closed cleanly")
}

func TestNewOpensAndStartsNothing(t *testing.T) {
	dir := t.TempDir()
	d, _ := newIn(t, dir, "", realSystem())
	require.NoDirExists(t, filepath.Join(dir, "state"))
	require.Equal(t, fresh, d.handover.current())
	require.Equal(t, fsm.Starting, d.machine.Snapshot().State)
}

func TestASecondGatewayIsRefusedAndLeavesTheFirstAlone(t *testing.T) {
	dir := t.TempDir()
	first := runIn(t, dir, "", realSystem())
	first.awaitRunning(0)
	second := runIn(t, dir, "", realSystem())
	<-second.done
	require.Equal(t, fsm.ExitConfig, second.code)
	require.ErrorContains(t, second.err, "already runs")
	require.ErrorContains(t, second.err, "\nTry: ")
	require.Contains(t, first.ask("hello"), "hello")
}

// hanging are lanes whose close ends only after the test has closed closes.
type hanging struct {
	lanes
	closes, ended chan struct{}
}

func (l hanging) Close(ctx context.Context) error {
	<-l.closes
	defer close(l.ended)
	return l.lanes.Close(ctx)
}

func TestACloseThatHangsIsCutByForceExit(t *testing.T) {
	dir, on := t.TempDir(), realSystem()
	closes, ended := make(chan struct{}), make(chan struct{})
	on.lanes = func(ctx context.Context, path string, cfg queue.Config) (lanes, error) {
		l, err := realSystem().lanes(ctx, path, cfg)
		return hanging{l, closes, ended}, err
	}
	r := runIn(t, dir, "lifecycle: { shutdown_timeout: 300ms }\n", on)
	r.awaitRunning(0)
	r.stop(errors.New("enough"))
	<-r.done
	require.Equal(t, fsm.ExitForced, r.code)
	require.ErrorContains(t, r.err, "shutdown timed out; exiting without full cleanup")
	require.Contains(t, r.log.String(), "shutdown timed out; exiting without full cleanup")
	require.True(t, statedir.Owned(filepath.Join(dir, "state")), "what is not closed keeps the lock")
	require.ErrorIs(t, r.tenure.keep(func() { t.Error("kept") }, nil), errTooLate)
	close(closes)
	<-ended
}
