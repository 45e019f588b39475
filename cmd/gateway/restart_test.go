package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/client"
	"gateway/internal/client/clienttest"
	"gateway/internal/statedir"
)

// restartable answers a restart with the decision, and GET /v1/lifecycle with one snapshot after the other.
func restartable(t *testing.T, decision map[string]any, snapshots ...http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("POST /v1/lifecycle/restart", clienttest.Document(http.StatusAccepted, decision))
	mux.Handle("GET /v1/lifecycle", clienttest.Answers(snapshots...))
	dir, _ := clienttest.Serve(t, mux)
	return dir
}

var (
	granted = map[string]any{"outcome": "accepted", "state": "Draining", "message": "the restart is under way", "hop": 8}
	before  = clienttest.Document(http.StatusOK, clienttest.Lifecycle("Running", "b1", 7))
	drains  = clienttest.Document(http.StatusOK, clienttest.Lifecycle("Draining", "b1", 8))
)

func TestRestartReportsTheNewImage(t *testing.T) {
	dir := restartable(t, granted, before, drains, clienttest.Cut, clienttest.Refusal(http.StatusServiceUnavailable, "away"), clienttest.Refusal(http.StatusBadGateway, "away"),
		clienttest.Document(http.StatusOK, clienttest.Lifecycle("Starting", "b2", 11)), clienttest.Document(http.StatusOK, clienttest.Lifecycle("Running", "b2", 12)))
	stdout, stderr, code := gatewayAt(t, dir, "restart")
	require.Equal(t, 0, code, stderr)
	require.Regexp(t, `^restarted in [0-9.]+m?s: pid 4711, boot b2, generation 0 \(exec\)\n$`, stdout)
}

func TestRestartInPlaceIsARestartToo(t *testing.T) {
	again := clienttest.Lifecycle("Running", "b1", 12)
	again["generation"] = 1
	dir := restartable(t, granted, before, drains, clienttest.Document(http.StatusOK, again))
	stdout, _, code := gatewayAt(t, dir, "restart", "--json")
	require.Equal(t, 0, code)
	var doc struct {
		Outcome string
		Status  struct{ Generation int }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &doc))
	require.Equal(t, "restarted", doc.Outcome)
	require.Equal(t, 1, doc.Status.Generation)
}

func TestRestartThatWasCalledOffReportsTheReason(t *testing.T) {
	earlier := map[string]any{"seq": 5, "event": "resume", "from": "Draining", "to": "Running", "reason": "of another day"}
	ours := map[string]any{"seq": 9, "event": "resume", "from": "Draining", "to": "Running", "reason": "the new image does not start: exit code 78"}
	dir := restartable(t, granted,
		clienttest.Document(http.StatusOK, clienttest.Lifecycle("Running", "b1", 7, earlier)), // the one before ours is not ours
		clienttest.Document(http.StatusOK, clienttest.Lifecycle("Running", "b1", 7, earlier)),
		clienttest.Document(http.StatusOK, clienttest.Lifecycle("Draining", "b1", 8, earlier)),
		clienttest.Document(http.StatusOK, clienttest.Lifecycle("Running", "b1", 9, earlier, ours)))
	stdout, stderr, code := gatewayAt(t, dir, "restart")
	require.Equal(t, 1, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "called off")
	require.Contains(t, stderr, "the new image does not start: exit code 78\nTry: ")
}

func TestRestartThatIsOutrankedOrRefusedOrLateFails(t *testing.T) {
	stops := clienttest.Lifecycle("ShuttingDown", "b1", 9)
	stops["intent"] = "stop"
	for name, c := range map[string]struct {
		dir, want string
	}{
		"outranked": {restartable(t, granted, before, drains, clienttest.Document(http.StatusOK, stops)), "a stop outranks a restart"},
		"refused":   {restartable(t, map[string]any{"outcome": "ignored", "state": "Stopped", "message": "the process ends"}, before), "refused while Stopped: the process ends"},
		"locked":    {restartable(t, granted, before, drains, clienttest.Document(http.StatusUnauthorized, map[string]any{"error": map[string]any{"message": "no", "code": client.NoToken}})), "its result is unknown: "},
		"late":      {restartable(t, granted, before, drains), "has not ended within 100ms"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, code := gatewayAt(t, c.dir, "restart", "--timeout", "100ms")
			require.Equal(t, 1, code)
			require.Contains(t, stderr, c.want)
			require.Contains(t, stderr, "\nTry: ")
		})
	}
}

func TestRestartThatDoesNotWaitReportsTheDecision(t *testing.T) {
	dir := restartable(t, granted, before)
	stdout, _, code := gatewayAt(t, dir, "restart", "--no-wait")
	require.Equal(t, 0, code)
	require.Equal(t, "accepted: the restart is under way\n", stdout)
}

// A stop is over when the state folder is free, which is later than when the socket is gone.
func TestStopWaitsUntilTheStateFolderIsFree(t *testing.T) {
	stoppable := func(t *testing.T) string {
		var dir string
		var srv *httptest.Server
		mux := http.NewServeMux()
		mux.HandleFunc("POST /v1/lifecycle/stop", func(w http.ResponseWriter, r *http.Request) {
			clienttest.Gone(t, dir, srv.Listener)
			clienttest.Document(http.StatusAccepted, map[string]any{"outcome": "accepted"})(w, r)
		})
		dir, srv = clienttest.Serve(t, mux)
		return dir
	}

	dir := stoppable(t)
	lock, err := statedir.Acquire(dir)
	require.NoError(t, err)
	_, stderr, code := gatewayAt(t, dir, "stop", "--timeout", "200ms")
	require.Equal(t, 1, code, "the lock of the folder is held")
	require.Contains(t, stderr, "has not stopped within 200ms")
	require.NoError(t, lock.Release())

	stdout, stderr, code := gatewayAt(t, stoppable(t), "stop")
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stdout, "stopped in ")
}
