package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/failpoint"
)

// The wall clock jumps a year ahead, back, and a year behind, while the gateway runs, across a kill and across a stop.
// Nothing is decided by it: turns keep their order, keys their turns, and nothing is pruned that is younger than the
// retention by the clock that it was written under.
func TestAClockThatJumpsCostsNothing(t *testing.T) {
	clock := filepath.Join(t.TempDir(), "ahead")
	set := func(ahead string) { require.NoError(t, os.WriteFile(clock, []byte(ahead), 0o600)) }
	const year, back = "8760h", "-8760h"
	config := `
turns: { max_attempts: 100, retention: 1h }
agents: { slow: { type: command, command: [sh, -c, "sleep 0.05; cat"] }, third: { type: command, command: [sh, -c, "[ $GATEWAY_TURN_RUN -gt 1 ] && cat"] } }
`
	h := newHouse(t, config, failpoint.EnvClock+"="+clock, failpoint.EnvHour+"=300ms")
	record := history{timeless: true}
	sent := 0
	send := func(n int) {
		t.Helper()
		address := h.waitState("Running").Address
		for range n {
			text, session := fmt.Sprint(sent), fmt.Sprintf("s%d", sent%3)
			a, _, err := ask(t.Context(), http.DefaultClient, address, session, "slow", text, text, sent%4 != 0)
			require.NoError(t, err)
			record.acknowledged(a.ID, session, text)
			sent++
		}
	}
	looks := func() int { return strings.Count(h.logged(), "no turn is older than the retention") }
	lookTwice := func() {
		t.Helper()
		before := looks()
		h.eventually("retention has looked", func() bool { return looks() >= before+2 })
		require.NotContains(t, h.logged(), "pruned turns older")
	}

	set("0s")
	h.start()
	send(8)
	fails, _, err := ask(t.Context(), http.DefaultClient, h.waitState("Running").Address, "third", "third", "at last", "third", false)
	require.NoError(t, err)
	require.Equal(t, "failed", h.turn(fails.ID).Status)
	record.acknowledged(fails.ID, "third", "at last")
	for _, ahead := range []string{year, "0s", back, "0s"} {
		set(ahead)
		send(6)
		lookTwice()
	}

	set(year) // while turns run, and over a kill; the clock is mended before retention believes it
	send(3)
	h.signal(syscall.SIGKILL)
	h.wait()
	h.env[1] = failpoint.EnvHour + "=6s"
	h.start()
	send(3)
	set("0s")
	h.eventually("retention has looked", func() bool { return looks() > 0 })
	require.NotContains(t, h.logged(), "pruned turns older")
	_, stderr, code := h.gateway("turns", "retry", fails.ID)
	require.Zero(t, code, stderr)
	h.judge(&record)

	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	set(back)
	h.start()
	send(6)
	h.judge(&record)
	address := h.waitState("Running").Address
	for i := range sent { // each key still means its turn
		session := fmt.Sprintf("s%d", i%3)
		a, _, err := ask(t.Context(), http.DefaultClient, address, session, "slow", fmt.Sprint(i), fmt.Sprint(i), true)
		require.NoError(t, err)
		require.Equal(t, record.promises[record.at[a.ID]].want, fmt.Sprint(i))
		require.Equal(t, session, record.promises[record.at[a.ID]].session)
	}
	require.Equal(t, sent+1, record.len())
	set(year)
	send(1)
	_, _, err = ask(t.Context(), http.DefaultClient, address, "waits", "slow", "x", "x", true)
	require.NoError(t, err)
	for _, command := range [][]string{{"turns"}, {"status"}, {"lanes"}, {"sessions"}} {
		out, stderr, code := h.gateway(command...)
		require.Zero(t, code, stderr)
		require.NotRegexp(t, `(^|\s)-\d`, out, "a time that has passed is not negative")
	}
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}
