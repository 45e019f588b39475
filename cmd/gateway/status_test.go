package main

import (
	"bufio"
	"bytes"
	"context"
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

	"github.com/stretchr/testify/require"
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
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lifecycle.jsonl"), []byte(journal), 0o600))
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
	snapshots := answers(
		document(http.StatusOK, lifecycleOf("Running", "b1", 7)),
		document(http.StatusOK, lifecycleOf("Draining", "b1", 8)),
		cut,
		document(http.StatusOK, lifecycleOf("Draining", "b1", 8)), // nothing new
		refusal(http.StatusServiceUnavailable, "away"),
		document(http.StatusOK, lifecycleOf("Running", "b2", 12)),
	)
	var after recorder
	event := func(kind string, doc map[string]any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			data, _ := json.Marshal(doc)
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "event: "+kind+"\ndata: "+string(data)+"\n\n")
		}
	}
	hops := after.of(func(r *http.Request) string { return r.URL.Query().Get("after") }, answers(
		event("hop", map[string]any{"seq": 8}),
		event("status", lifecycleOf("Draining", "b1", 8)),
		event("status", lifecycleOf("Running", "b2", 12)),
		func(w http.ResponseWriter, r *http.Request) {
			event("status", lifecycleOf("Running", "b2", 12))(w, r)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/lifecycle", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "text/event-stream" {
			hops(w, r)
		} else {
			snapshots(w, r)
		}
	})
	dir, _ := serveSocket(t, mux)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	type result struct {
		stderr string
		code   int
	}
	ended := make(chan result, 1)
	go func() {
		stderr, code := command(ctx, &bytes.Buffer{}, write, "status", "--watch", "--state-dir", dir)
		_ = write.Close()
		ended <- result{stderr, code}
	}()
	var states []string
	for lines := bufio.NewScanner(read); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "state  "); ok {
			states = append(states, strings.Fields(rest)[0])
			if len(states) == 3 {
				cancel()
			}
		}
	}
	require.Equal(t, []string{"Running", "Draining", "Running"}, states)
	require.Equal(t, result{}, <-ended)
	require.Equal(t, []string{"7", "8", "8"}, after.asked[:3], "hops that were seen are not asked for again")
}

func TestStatusWatchEndsWhenItIsRefusedForGood(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/lifecycle", refusal(http.StatusUnauthorized, "the token is wrong. Try: another"))
	dir, _ := serveSocket(t, mux)
	_, stderr, code := gatewayAt(t, dir, "status", "--watch")
	require.Equal(t, 1, code)
	require.Equal(t, "gateway: the token is wrong\nTry: another\n", stderr)
}
