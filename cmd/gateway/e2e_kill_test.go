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
// restarts (GATEWAY_TEST_KILLS makes it more) and starts it again, as a supervisor or a person would.
func TestAKillAtAnyMomentOfARestartLosesNothing(t *testing.T) {
	rounds := envInt(t, "GATEWAY_TEST_KILLS", 10)
	h := newHouse(t, "turns: { max_attempts: 1000, max_queued_per_session: 100000 }\nagents: { slow: { type: command, command: [sh, -c, \"sleep 0.03; cat\"] } }\n")
	acked := make(map[string]string) // turn id → answer
	var died []string                // the states in which it died
	for round := range rounds {
		h.start()
		s := h.waitState("Running")
		for i := range 3 {
			want := fmt.Sprintf("%d.%d", round, i)
			a, _, err := ask(t.Context(), http.DefaultClient, s.Address, fmt.Sprintf("desk%d", i), "slow", want, "key-"+want, true)
			require.NoError(t, err)
			acked[a.ID] = want
		}
		h.restartWithoutWaiting()
		<-time.After(rand.N(60 * time.Millisecond)) // the moment is what is tried, not waited for
		h.signal(syscall.SIGKILL)
		h.wait()
		out, _, code := h.gateway("status")
		require.Equal(t, 3, code, out)
		died = append(died, lastState(out))
	}
	h.start()
	h.eventually("every turn has ended", func() bool {
		s, err := h.status()
		return err == nil && s.Turns.Queued == 0 && s.Turns.Running == 0
	})
	for id, want := range acked {
		turn := h.turn(id)
		require.Equal(t, "completed", turn.Status, turn.Error)
		require.Equal(t, want, turn.Output)
		require.Equal(t, 1, h.finals(id))
	}
	for i := range 3 {
		h.checkOrder(fmt.Sprintf("desk%d", i))
	}
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	t.Logf("%d kills, %d turns; it died in %s", rounds, len(acked), strings.Join(died, " "))
}

func (h *house) restartWithoutWaiting() {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, "http://gateway/v1/lifecycle/restart", nil)
	require.NoError(h.t, err)
	if resp, err := h.http.Do(req); err == nil { // it may die before it answers
		require.NoError(h.t, resp.Body.Close())
	}
}

// lastState is where `gateway status` says that the last process was.
func lastState(status string) string {
	_, last, _ := strings.Cut(status, "last seen: ")
	hop, _, _ := strings.Cut(last, " (")
	_, to, found := strings.Cut(hop, " → ")
	if !found {
		to, _, _ = strings.Cut(hop, " at ")
	}
	return to
}
