package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAKillAtAnyMomentOfARestartLosesNothing kills the gateway at a random moment of each of a number of
// restarts (GATEWAY_TEST_KILLS makes it more) and starts it again, as a supervisor or a person would, unless a
// successor has taken over.
func TestAKillAtAnyMomentOfARestartLosesNothing(t *testing.T) {
	for _, mode := range []string{"exec", "spawn"} {
		t.Run(mode, func(t *testing.T) { killAtAnyMoment(t, mode) })
	}
}

func killAtAnyMoment(t *testing.T, mode string) {
	rounds := envInt(t, "GATEWAY_TEST_KILLS", 10)
	h := newHouse(t, "lifecycle: { respawn: "+mode+" }\nturns: { max_attempts: 1000, max_queued_per_session: 100000 }\nagents: { slow: { type: command, command: [sh, -c, \"sleep 0.03; cat\"] } }\n")
	var record history
	died := make(map[string]int) // the states in which it died
	h.start()
	for round := range rounds {
		s := h.waitState("Running")
		for i := range 3 {
			want := fmt.Sprintf("%d.%d", round, i)
			a, _, err := ask(t.Context(), http.DefaultClient, s.Address, fmt.Sprintf("desk%d", i), "slow", want, "key-"+want, true)
			require.NoError(t, err)
			record.acknowledged(a.ID, fmt.Sprintf("desk%d", i), want)
		}
		h.restartWithoutWaiting()
		<-time.After(rand.N(60 * time.Millisecond)) // the moment is what is tried, not waited for
		_ = syscall.Kill(s.PID, syscall.SIGKILL)
		tookOver := false
		h.eventually("a successor serves, or nobody is left", func() bool {
			after, err := h.status()
			tookOver = err == nil && after.State == "Running" && after.PID != s.PID
			return tookOver || len(h.alive()) == 0
		})
		if tookOver {
			died["a successor had taken over"]++
			continue
		}
		out, _, code := h.gateway("status")
		require.Equal(t, 3, code, out)
		died[lastState(out)]++
		h.cmd = nil
		h.start()
	}
	h.judge(&record)
	require.Len(t, h.alive(), 1, "exactly one gateway")
	out, stderr, code := h.gateway("stop")
	require.Zero(t, code, "%s%s", out, stderr)
	require.Empty(t, h.alive())
	h.cmd = nil
	t.Logf("%d kills, %d turns; it died in %v", rounds, record.len(), died)
}

func (h *house) restartWithoutWaiting() {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, "http://gateway/v1/lifecycle/restart", nil)
	require.NoError(h.t, err)
	if resp, err := h.http.Do(req); err == nil { // it may die before it answers
		require.NoError(h.t, resp.Body.Close())
	}
}

// lastState is the last state of the last process, as `gateway status` prints it.
func lastState(status string) string {
	_, last, _ := strings.Cut(status, "last seen: ")
	hop, _, _ := strings.Cut(last, " (")
	_, to, found := strings.Cut(hop, " → ")
	if !found {
		to, _, _ = strings.Cut(hop, " at ")
	}
	return to
}
