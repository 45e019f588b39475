package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/internal/puppet"
	"gateway/queue"
	"gateway/server/api"
)

// quiet is a server without a socket, whose one turn has ended, and the path of that turn's response.
func quiet(f *testing.F) (s *Server, response string) {
	f.Helper()
	q, err := queue.Open(f.Context(), filepath.Join(f.TempDir(), "store.db"), queue.Config{
		Runner: &puppet.Agent{}, Lanes: map[string]int{"main": 4}, MaxAttempts: 1, OnInterrupt: queue.RetryTurn, MaxQueued: 10, MaxQueuedPerSession: 10,
		MaxOutput: 1 << 20, Retention: time.Hour, CancelGrace: time.Second, RetryBackoff: time.Millisecond, MaxInput: 1 << 20, Log: zerolog.Nop(),
	})
	require.NoError(f, err)
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(f, q.Close(ctx))
	})
	q.Resume()
	s = New(Options{Lifecycle: newMachine(), Version: "test", Log: zerolog.Nop()})
	s.Publish(&api.Backend{Queue: q, Agents: []string{"echo"}, DefaultAgent: "echo", Lanes: []string{"main"}, DefaultLane: "main", MaxInput: 1000})
	status, body := try(f, s, http.MethodPost, "/v1/responses", `{"input":"some words"}`, "")
	require.Equal(f, http.StatusOK, status, body)
	var made struct{ ID string }
	require.NoError(f, json.Unmarshal([]byte(body), &made))
	return s, "/v1/responses/" + made.ID
}

// try asks as a client of the control socket.
func try(t testing.TB, s *Server, method, target, body, lastEvent string) (int, string) {
	ctx, cancel := context.WithTimeout(withTrusted(t.Context()), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://gateway"+target, strings.NewReader(body))
	if err != nil {
		return 0, "" // no client can send it
	}
	r.Header.Set("Content-Type", "application/json")
	if lastEvent != "" {
		r.Header.Set("Last-Event-ID", lastEvent)
		r.Header.Set("Accept", "text/event-stream")
	}
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, r)
	require.NoError(t, ctx.Err(), "%s %s: too slow", method, target)
	return w.Code, w.Body.String()
}

// checkAnswer: whatever a client sends is its own fault, and it is told so in a document.
func checkAnswer(t *testing.T, status int, body string) {
	t.Helper()
	require.Less(t, status, http.StatusInternalServerError, body)
	if status < http.StatusBadRequest {
		return
	}
	var document struct {
		Error struct{ Message, Type, Code string }
	}
	require.NoError(t, json.Unmarshal([]byte(body), &document), body)
	require.NotEmpty(t, document.Error.Type)
	require.NotEmpty(t, document.Error.Code)
	require.NotEmpty(t, document.Error.Message)
}

func FuzzQuery(f *testing.F) {
	s, response := quiet(f)
	turn := strings.Replace(response, "responses", "turns", 1)
	paths := []string{"/v1/turns", "/v1/sessions", response, response + "/input_items", turn + "/events", "/v1/states", "/v1/models"}
	for i, query := range []string{
		"session=s&lane=main&agent=echo&status=queued,running&limit=5&before=x", "limit=1000", "stream=true&starting_after=2", "order=asc&limit=1&after=msg_0",
		"after=9223372036854775807", "format=dot", "limit=1;limit=2&%zz",
	} {
		f.Add(uint8(i), query, "")
		f.Add(uint8(i), query, "1")
	}
	f.Fuzz(func(t *testing.T, path uint8, query, lastEvent string) {
		status, body := try(t, s, http.MethodGet, paths[int(path)%len(paths)]+"?"+query, "", lastEvent)
		checkAnswer(t, status, body)
	})
}

// FuzzSmallBody is of the bodies that make no turn.
func FuzzSmallBody(f *testing.F) {
	s, response := quiet(f)
	targets := []struct{ method, path string }{
		{http.MethodPatch, "/v1/sessions/s"},
		{http.MethodPatch, "/v1/lanes/main"},
		{http.MethodGet, response},
		{http.MethodPost, "/v1/lifecycle/restart"},
		{http.MethodPost, "/v1/lifecycle/stop"},
		{http.MethodPost, response + "/cancel"},
	}
	for i, body := range []string{
		`{"paused":true,"mode":"collect"}`, `{"paused":false}`, `{"stream":true}`, `{"reason":"x","drain_timeout":"1s","turn":"t","authorize_signal":true}`, `{"reason":"\u0000"}`, `{}`,
	} {
		f.Add(uint8(i), body)
	}
	f.Fuzz(func(t *testing.T, target uint8, body string) {
		to := targets[int(target)%len(targets)]
		status, answer := try(t, s, to.method, to.path, body, "")
		checkAnswer(t, status, answer)
	})
}
