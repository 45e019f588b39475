package client

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/internal/client/clienttest"
	"gateway/internal/statedir"
)

func hop(seq int, boot, to, event string) map[string]any {
	return map[string]any{"seq": seq, "boot_id": boot, "to": to, "event": event, "actor": "local", "time": "2026-01-02T03:04:05Z"}
}

// documents answers GET /v1/events: a document with a state is a status, any other a hop. Then the stream ends.
func documents(all ...map[string]any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, d := range all {
			kind := "hop"
			if _, ok := d["state"]; ok {
				kind = "status"
			}
			clienttest.Event(w, kind, d)
		}
	}
}

func watched(t *testing.T, c *Client) (lines []string, err error) {
	t.Helper()
	err = c.Watch(t.Context(), func(s Sighting) error {
		for _, change := range s.Changes {
			line := change.BootID + " " + change.State
			if change.Event != "" {
				line += " by " + string(change.Event)
			}
			if change.Turns != nil {
				line += " with turns"
			}
			lines = append(lines, line)
		}
		return nil
	})
	return lines, err
}

func TestWatchReportsEveryHopOnce(t *testing.T) {
	status := clienttest.Lifecycle
	busier := status("Running", "b2", 10)
	busier["turns"] = map[string]int{"running": 2}
	mux := http.NewServeMux()
	mux.Handle("GET /v1/events", clienttest.Answers(
		// Hops before the first status are not changes.
		documents(status("Running", "b1", 7), hop(6, "b0", "Respawning", "closed"), hop(7, "b1", "Running", "started"), status("Running", "b1", 7)),
		// A status may come before its hop, and a hop may have no status.
		documents(status("Running", "b1", 7), hop(7, "b1", "Running", "started"), status("Running", "b1", 7), status("Draining", "b1", 8), hop(8, "b1", "Draining", "restart")),
		clienttest.Cut,
		clienttest.Refusal(http.StatusServiceUnavailable, "away"),
		// The successor has the history of its predecessor.
		documents(status("Running", "b2", 10), hop(8, "b1", "Draining", "restart"), hop(9, "b2", "Starting", ""), hop(10, "b2", "Running", "started"), status("Running", "b2", 10), busier, busier),
		// After a kill the next process counts from 9 again, up to the last number that was seen and past it.
		documents(status("Running", "b3", 11), hop(9, "b3", "Starting", ""), hop(10, "b3", "Running", "started"), hop(11, "b3", "Draining", "restart"), status("Draining", "b3", 11)),
		clienttest.Refusal(http.StatusForbidden, "enough. Try: another day"),
	))
	dir, _ := clienttest.Serve(t, mux)
	lines, err := watched(t, In(dir))
	var refused *APIError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, []string{
		"b1 Running with turns",
		"b1 Draining by restart",
		"b2 Starting", "b2 Running by started with turns", "b2 Running with turns",
		"b3 Starting", "b3 Running by started", "b3 Draining by restart with turns",
	}, lines)
}

// The last hops of a gateway that stops come after its streams have ended. They are only in the journal.
func TestWatchReadsTheLastHopsFromTheJournal(t *testing.T) {
	var dir string
	journal := func(hops ...map[string]any) {
		f, err := os.OpenFile(filepath.Join(dir, statedir.JournalFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			for _, h := range hops {
				_ = json.NewEncoder(f).Encode(h)
			}
			_ = f.Close()
		}
	}
	ended := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/events", clienttest.Answers(func(w http.ResponseWriter, r *http.Request) {
		documents(clienttest.Lifecycle("Running", "b1", 7), hop(8, "b1", "ShuttingDown", "stop"), clienttest.Lifecycle("ShuttingDown", "b1", 8))(w, r)
		journal(hop(8, "b1", "ShuttingDown", "stop"), hop(9, "b1", "Stopped", "closed"))
		close(ended)
	}, clienttest.Cut))
	dir, srv := clienttest.Serve(t, mux)
	journal(hop(1, "b0", "Starting", ""), hop(7, "b1", "Running", "started"))
	lock, err := statedir.Acquire(dir)
	require.NoError(t, err)
	go func() {
		<-ended
		clienttest.Gone(t, dir, srv.Listener)
		_ = lock.Release()
	}()
	var lines []string
	stop := &APIError{Message: "enough"}
	err = In(dir).Watch(t.Context(), func(s Sighting) error {
		for _, change := range s.Changes {
			lines = append(lines, change.State+" "+string(change.Event))
			if change.State == NotRunning {
				return stop
			}
		}
		return nil
	})
	require.Equal(t, stop, err)
	require.Equal(t, []string{"Running ", "ShuttingDown stop", "Stopped closed", "not running "}, lines)
}

func TestAGatewayThatDoesNotAnswerIsNotRunningAfterSettleTime(t *testing.T) {
	o, now := newObserver(), time.Now()
	require.Equal(t, NotRunning, o.miss(true, now)[0].State, "no gateway at first")
	require.Empty(t, o.miss(true, now.Add(time.Hour)))

	o = newObserver()
	o.met, o.state = true, "Running"
	require.Empty(t, o.miss(true, now))
	require.Empty(t, o.miss(false, now.Add(settleTime-1)))
	require.Equal(t, NotRunning, o.miss(false, now.Add(settleTime))[0].State)
}
