package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/internal/statedir"
)

// lifecycleOf is an answer of GET /v1/lifecycle.
func lifecycleOf(state, boot string, hop int, history ...map[string]any) map[string]any {
	return map[string]any{
		"state": state, "since": "2026-01-02T03:04:05Z", "pid": 4711, "boot_id": boot, "generation": 0, "address": "127.0.0.1:18789",
		"state_dir": "/s", "version": "v1", "respawn_mode": "exec", "respawn_reason": "auto", "intent": "", "admission": "open", "hop": hop,
		"turns": map[string]int{"running": 1, "queued": 2, "stuck": 0}, "history": history,
	}
}

func TestStatusPassesTheDocumentedFieldsAndNoHistory(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/lifecycle", document(http.StatusOK, lifecycleOf("Running", "b1", 3, map[string]any{"seq": 3, "to": "Running"})))
	dir, _ := serveSocket(t, mux)
	stdout, _, code := gatewayAt(t, dir, "status", "--json")
	require.Equal(t, 0, code)
	var doc map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &doc))
	fields := slices.Sorted(maps.Keys(doc))
	require.Subset(t, fields, []string{
		"state", "since", "pid", "boot_id", "generation", "address", "state_dir", "version", "respawn_mode", "respawn_reason", "intent", "hop", "turns",
	})
	require.NotContains(t, fields, "history")
	require.NotContains(t, fields, "deadline", "no deadline is no field")
	require.Equal(t, map[string]any{"running": 1.0, "queued": 2.0, "stuck": 0.0}, doc["turns"])
}

func TestStatusExitsWithOneWhenAGatewayRunsThatIsNotRunning(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"draining": document(http.StatusOK, lifecycleOf("Draining", "b1", 4)),
		"failing":  refusal(http.StatusInternalServerError, "the gateway could not do this"),
		"cut":      cut,
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.Handle("GET /v1/lifecycle", h)
			dir, _ := serveSocket(t, mux)
			stdout, stderr, code := gatewayAt(t, dir, "status")
			require.Equal(t, 1, code)
			require.NotContains(t, stdout+stderr, "not running")
		})
	}
}

func TestStatusOfNobodyExitsWithThreeAndShowsTheLastHop(t *testing.T) {
	dir := t.TempDir()
	stdout, stderr, code := gatewayAt(t, dir, "status", "--json")
	require.Equal(t, 3, code)
	require.Empty(t, stderr)
	require.JSONEq(t, `{"state": "not running", "state_dir": "`+dir+`", "last_hop": null}`, stdout)

	journal := `{"seq":1,"to":"Starting","actor":"gateway"}
{"seq":2,"boot_id":"b1","from":"Starting","event":"started","to":"Running","actor":"gateway"}
{"seq":3,"boot_id":"b1","fr`
	require.NoError(t, os.WriteFile(filepath.Join(dir, statedir.JournalFile), []byte(journal), 0o600))
	stdout, stderr, code = gatewayAt(t, dir, "status")
	require.Equal(t, 3, code)
	require.Contains(t, stdout, "last seen: Starting → Running (started)")
	require.Contains(t, stdout, "it did not stop by itself")
	require.Equal(t, "gateway: no gateway runs\nTry: gateway run\n", stderr)

	elsewhere := httptest.NewServer(http.NotFoundHandler())
	elsewhere.Close()
	stdout, _, code = gatewayAt(t, dir, "status", "--json", "--url", elsewhere.URL)
	require.Equal(t, 3, code)
	require.JSONEq(t, `{"state": "not running", "url": "`+elsewhere.URL+`"}`, stdout)
}

func TestStatusWatchPrintsEveryChangeOnceAndOutlivesTheConnection(t *testing.T) {
	hop := func(seq int, boot, to, event string) map[string]any {
		return map[string]any{"seq": seq, "boot_id": boot, "to": to, "event": event, "actor": "local", "time": "2026-01-02T03:04:05Z"}
	}
	var after recorder
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/lifecycle", after.of(func(r *http.Request) string { return r.URL.Query().Get("after") }, answers(
		document(http.StatusOK, lifecycleOf("Running", "b1", 7, hop(7, "b1", "Running", "started"))),
		document(http.StatusOK, lifecycleOf("Draining", "b1", 8, hop(8, "b1", "Draining", "restart"))),
		cut,
		document(http.StatusOK, lifecycleOf("Draining", "b1", 8)), // nothing new
		refusal(http.StatusServiceUnavailable, "away"),
		document(http.StatusOK, lifecycleOf("Running", "b2", 10, hop(9, "b2", "Starting", ""), hop(10, "b2", "Running", "started"))),
		document(http.StatusOK, lifecycleOf("Running", "b3", 2)), // killed and started: it counts anew
		document(http.StatusOK, lifecycleOf("Running", "b3", 2, hop(1, "b3", "Starting", ""), hop(2, "b3", "Running", "started"))),
		refusal(http.StatusForbidden, "enough. Try: another day"),
	)))
	dir, _ := serveSocket(t, mux)
	stdout, _, code := gatewayAt(t, dir, "status", "--watch", "--json")
	require.Equal(t, 1, code)
	var states []string
	for line := range strings.Lines(stdout) {
		var c statusChange
		require.NoError(t, json.Unmarshal([]byte(line), &c), line)
		states = append(states, c.BootID+" "+c.State)
	}
	require.Equal(t, []string{"b1 Running", "b1 Draining", "b2 Starting", "b2 Running", "b3 Starting", "b3 Running"}, states)
	require.Equal(t, []string{"0", "7", "8", "8", "8", "8", "10"}, after.asked[:7], "hops that were seen are not asked for again")
}

func TestALineOfStatusWatchCannotMoveTheCursor(t *testing.T) {
	c := statusChange{State: "Draining", Event: "restart", Actor: "api", Reason: "red \x1b[31m\r"}
	require.Equal(t, "Draining      (restart by api: red  [31m )", c.text())
}

func TestProgressSaysWhatARestartWaitsFor(t *testing.T) {
	now := time.Now()
	var s snapshot
	s.State, s.Turns.Running, s.Deadline = "Draining", 2, now.Add(25*time.Second)
	require.Equal(t, "restarting: Draining, waits for 2 running turns, at most 25s more", restartProgress(s, nil, now))
	s.Turns.Running, s.Deadline = 1, time.Time{}
	require.Equal(t, "restarting: Draining, waits for a running turn", restartProgress(s, nil, now))
	require.Equal(t, "restarting: the next gateway is on its way", restartProgress(s, io.EOF, now))
	require.Equal(t, "copying: 1.0 MiB of 4.0 MiB, 25%", copied(1<<20, 4<<20))
	require.Equal(t, "copying: 5.0 MiB of 4.0 MiB, 100%", copied(5<<20, 4<<20))
	p := newProgress(&bytes.Buffer{})
	p.show("nothing at no terminal")
	p.end()
}

func TestStatusWatchEndsWhenItIsRefusedForGood(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/lifecycle", refusal(http.StatusUnauthorized, "the token is wrong. Try: another"))
	dir, _ := serveSocket(t, mux)
	_, stderr, code := gatewayAt(t, dir, "status", "--watch")
	require.Equal(t, 1, code)
	require.Equal(t, "gateway: the token is wrong\nTry: another\n", stderr)
}
