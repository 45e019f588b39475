// Package clienttest serves canned answers instead of a gateway, on a control socket.
package clienttest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/statedir"
)

// Serve serves on the control socket of a new state folder.
func Serve(t *testing.T, h http.Handler) (dir string, srv *httptest.Server) {
	t.Helper()
	dir = t.TempDir()
	ln, err := statedir.ListenSocket(t.Context(), dir)
	require.NoError(t, err)
	srv = httptest.NewUnstartedServer(h)
	require.NoError(t, srv.Listener.Close())
	srv.Listener = ln
	srv.Start()
	t.Cleanup(srv.Close)
	return dir, srv
}

// Gone closes the control socket as a gateway that stops does.
func Gone(t *testing.T, dir string, ln net.Listener) {
	t.Helper()
	statedir.RemoveSocket(dir)
	require.NoError(t, ln.Close())
}

// Cut closes the connection in the middle of the answer.
func Cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// Answers serves each request with the next handler, and all later requests with the last handler.
func Answers(handlers ...http.HandlerFunc) http.HandlerFunc {
	next := make(chan http.HandlerFunc, len(handlers))
	for _, h := range handlers {
		next <- h
	}
	last := handlers[len(handlers)-1]
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case h := <-next:
			h(w, r)
		default:
			last(w, r)
		}
	}
}

// Document answers with JSON.
func Document(status int, v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
}

// Refusal answers with an error document.
func Refusal(status int, message string) http.HandlerFunc {
	return Document(status, map[string]any{"error": map[string]any{"message": message, "type": "t", "code": "c", "param": nil}})
}

// Lifecycle is an answer of GET /v1/lifecycle; without the history it is the event `status`.
func Lifecycle(state, boot string, hop int, history ...map[string]any) map[string]any {
	return map[string]any{
		"state": state, "since": "2026-01-02T03:04:05Z", "pid": 4711, "boot_id": boot, "generation": 0, "address": "127.0.0.1:18789",
		"state_dir": "/s", "version": "v1", "respawn_mode": "exec", "respawn_reason": "auto", "intent": "", "admission": "open", "hop": hop,
		"turns": map[string]int{"running": 1, "queued": 2, "stuck": 0}, "history": history,
	}
}

// Event writes an event of a stream.
func Event(w http.ResponseWriter, kind string, v any) {
	w.Header().Set("Content-Type", "text/event-stream")
	data, _ := json.Marshal(v)
	_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, data)
	_ = http.NewResponseController(w).Flush()
}

// Events writes events of a response, numbered from first. Each is a kind without its prefix, or kind:delta.
func Events(w http.ResponseWriter, first int, kindsAndDeltas ...string) {
	for i, e := range kindsAndDeltas {
		kind, delta, _ := strings.Cut(e, ":")
		Event(w, "response."+kind, map[string]any{"type": "response." + kind, "sequence_number": first + i, "delta": delta})
	}
}

// Stream answers with Events and ends the stream.
func Stream(first int, kindsAndDeltas ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { Events(w, first, kindsAndDeltas...) }
}

// StreamThenCut answers with Events and closes the connection.
func StreamThenCut(first int, kindsAndDeltas ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		Events(w, first, kindsAndDeltas...)
		Cut(w, r)
	}
}

// Accepted accepts the turn "t1".
var Accepted = Document(http.StatusOK, map[string]any{"id": "t1", "status": "queued"})

// Turn serves one turn, "t1": its acceptance, its stream and its final document.
func Turn(t *testing.T, accept, follow http.HandlerFunc, turn map[string]any) (dir string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("POST /v1/responses", accept)
	mux.Handle("GET /v1/responses/t1", follow)
	turn["id"], turn["session"] = "t1", "main"
	mux.Handle("GET /v1/turns/t1", Document(http.StatusOK, turn))
	dir, _ = Serve(t, mux)
	return dir
}

// Recorder records requests. The zero value is ready.
type Recorder struct {
	mu    sync.Mutex
	asked []string
}

// Of records `what` of each request, and then serves it with h.
func (rec *Recorder) Of(what func(r *http.Request) string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rec.mu.Lock()
		rec.asked = append(rec.asked, what(r))
		rec.mu.Unlock()
		h(w, r)
	}
}

// Asked returns what was recorded, in order.
func (rec *Recorder) Asked() []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.Clone(rec.asked)
}
