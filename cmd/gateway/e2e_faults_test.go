package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestADeathAtEveryWriteLosesNothing kills the real process before and after each kind of write to the store,
// and around each run of an agent, under load. What was acknowledged is written down here, outside of it.
func TestADeathAtEveryWriteLosesNothing(t *testing.T) {
	for _, moment := range moments() {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			v := dieWriting(t, moment)
			v.requireClean(t)
			t.Logf("%d turns were acknowledged", v.acknowledged)
		})
	}
}

func moments() []string {
	moments := []string{"turn.runs", "turn.ran"}
	for _, kind := range []string{"accept", "start", "append", "end", "cancel", "retry", "set", "delete", "settle"} {
		moments = append(moments, "store."+kind+".applied", "store."+kind+".committed")
	}
	return moments
}

func dieWriting(t *testing.T, moment string) verdict {
	h, arm := newHandoverHouse(t, "exec", moment+"=kill")
	h.configure(`
turns: { max_attempts: 20 }
agents:
  slow:  { type: command, command: [sh, -c, "sleep 0.02; cat"] }
  drops: { type: command, command: [sh, -c, "for i in 1 2 3; do echo $i; sleep 0.02; done; cat"] }
  never: { type: command, command: [sh, -c, "sleep 600"] }
  third: { type: command, command: [sh, -c, "[ $GATEWAY_TURN_RUN -gt 2 ] && cat"] }
`)
	h.start()
	address := h.waitState("Running").Address
	var record history
	// What the moments of a cancel and a retry need; nothing of it is acknowledged by the gateway that dies.
	never, _, err := ask(t.Context(), http.DefaultClient, address, "stuck", "never", "x", "stuck", true)
	require.NoError(t, err)
	waits, _, err := ask(t.Context(), http.DefaultClient, address, "stuck", "slow", "x", "waits", true)
	require.NoError(t, err)
	failed, _, err := ask(t.Context(), http.DefaultClient, address, "fails", "third", "at last", "fails", true)
	require.NoError(t, err)
	say := func(s, i int) error {
		agent, text := "slow", fmt.Sprintf("%d.%d", s, i)
		want := text
		if i%2 == 1 {
			agent, want = "drops", "1\n2\n3\n"+text
		}
		a, _, err := ask(t.Context(), http.DefaultClient, address, fmt.Sprintf("s%d", s), agent, text, text, true)
		if err == nil {
			record.acknowledged(a.ID, fmt.Sprintf("s%d", s), want)
		}
		return err
	}
	gone, _, err := ask(t.Context(), http.DefaultClient, address, "gone", "echo", "x", "gone", false)
	require.NoError(t, err)
	if strings.HasPrefix(moment, "store.settle") { // of the start after a death
		for i := range 20 {
			require.NoError(t, say(i%4, i/4))
		}
		h.eventually("a turn runs", func() bool { return h.turn(failed.ID).Status != "queued" })
		require.NoError(t, h.cmd.Process.Kill())
		h.wait()
		arm()
		h.launch()
	} else {
		armed := make(chan struct{}) // once some turns are acknowledged
		var once sync.Once
		var clients sync.WaitGroup
		for s := range 4 {
			clients.Go(func() {
				for i := range 5 {
					if say(s, i) != nil {
						return // it is dead
					}
					if record.len() >= 6 {
						once.Do(func() { arm(); close(armed) })
					}
				}
			})
		}
		clients.Go(func() { // one whose end is asked for, and one that is given another try
			<-armed
			_, _, _ = h.gateway("turns", "cancel", waits.ID)
			_, _, _ = h.gateway("turns", "delete", gone.ID)
			_, _, _ = h.gateway("lanes", "pause", "cron")
			for {
				_, stderr, code := h.gateway("turns", "retry", failed.ID)
				if code == 0 || !strings.Contains(stderr, "not") {
					return
				}
				if s, err := h.status(); err != nil || s.State != "Running" {
					return
				}
			}
		})
		clients.Wait()
	}
	h.eventually("it has died", func() bool { return len(h.alive()) == 0 })
	h.wait()
	h.start()
	h.waitState("Running")
	h.eventually("every turn but one has ended", func() bool {
		s, err := h.status()
		left := 0 // in line behind the one that never ends
		if h.turn(waits.ID).Status == "queued" {
			left = 1
		}
		return err == nil && s.Turns.Queued == left && s.Turns.Running == 1
	})
	h.eventually("it is written down that it runs", func() bool { return h.turn(never.ID).Status == "running" })
	require.Contains(t, []string{"queued", "cancelled"}, h.turn(waits.ID).Status)
	return record.judge(h.account(""))
}
