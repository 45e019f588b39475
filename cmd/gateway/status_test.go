package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/internal/client"
	"gateway/internal/client/clienttest"
	"gateway/internal/statedir"
)

func TestStatusPassesTheDocumentedFieldsAndNoHistory(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/lifecycle", clienttest.Document(http.StatusOK, clienttest.Lifecycle("Running", "b1", 3, map[string]any{"seq": 3, "to": "Running"})))
	dir, _ := clienttest.Serve(t, mux)
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

func TestStatusExitsWithOneUnlessTheStateIsRunning(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"draining": clienttest.Document(http.StatusOK, clienttest.Lifecycle("Draining", "b1", 4)),
		"failing":  clienttest.Refusal(http.StatusInternalServerError, "the gateway could not do this"),
		"cut":      clienttest.Cut,
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.Handle("GET /v1/lifecycle", h)
			dir, _ := clienttest.Serve(t, mux)
			stdout, stderr, code := gatewayAt(t, dir, "status")
			require.Equal(t, 1, code)
			require.NotContains(t, stdout+stderr, "not running")
		})
	}
}

func TestStatusWithoutAGatewayExitsWithThreeAndShowsTheLastHop(t *testing.T) {
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
	require.Contains(t, stdout, "it crashed or was killed")
	require.Equal(t, "gateway: no gateway is running\nTry: gateway run\n", stderr)

	elsewhere := httptest.NewServer(http.NotFoundHandler())
	elsewhere.Close()
	stdout, _, code = gatewayAt(t, dir, "status", "--json", "--url", elsewhere.URL)
	require.Equal(t, 3, code)
	require.JSONEq(t, `{"state": "not running", "url": "`+elsewhere.URL+`"}`, stdout)
}

func TestALineOfStatusWatchCannotMoveTheCursor(t *testing.T) {
	c := client.StatusChange{State: "Draining", Event: "restart", Actor: "api", Reason: "red \x1b[31m\r"}
	require.Equal(t, "Draining      (restart by api: red  [31m )", describeChange(c))
}

func TestProgressShowsWhatARestartWaitsFor(t *testing.T) {
	now := time.Now()
	var s client.Snapshot
	s.State, s.Turns.Running, s.Deadline = "Draining", 2, now.Add(25*time.Second)
	require.Equal(t, "restarting: Draining, waiting for 2 running turns, at most 25s more", restartProgress(s, nil, now))
	s.Turns.Running, s.Deadline = 1, time.Time{}
	require.Equal(t, "restarting: Draining, waiting for 1 running turn", restartProgress(s, nil, now))
	require.Equal(t, "restarting: the successor is starting", restartProgress(s, io.EOF, now))
	require.Equal(t, "copying: 1.0 MiB of 4.0 MiB, 25%", copied(1<<20, 4<<20))
	require.Equal(t, "copying: 5.0 MiB of 4.0 MiB, 100%", copied(5<<20, 4<<20))
}

func TestStatusWatchEndsWhenItIsRefusedPermanently(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/events", clienttest.Refusal(http.StatusUnauthorized, "the token is wrong. Try: another"))
	dir, _ := clienttest.Serve(t, mux)
	_, stderr, code := gatewayAt(t, dir, "status", "--watch")
	require.Equal(t, 1, code)
	require.Equal(t, "gateway: the token is wrong\nTry: another\n", stderr)
}
