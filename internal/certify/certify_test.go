package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sse "github.com/tmaxmax/go-sse"
)

// TestMain lets this test's own binary be a recipe.
func TestMain(m *testing.M) {
	if kind := os.Getenv(recipeVariable); kind != "" {
		if err := serveRecipe(kind, os.Getenv(addressVariable)); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// TestNobodyNoticesARestart is the short version of `make certify`.
func TestNobodyNoticesARestart(t *testing.T) {
	if testing.Short() {
		t.Skip("restarts a real gateway fifty times")
	}
	p := plan{exec: 25, spawn: 15, inProcess: 8, slow: 2, clients: 1, between: 50 * time.Millisecond}
	dir := t.TempDir()
	built, err := build(t.Context(), dir)
	require.NoError(t, err)
	for _, one := range p.subjects(dir, built) {
		if !one.ours {
			continue
		}
		r, err := run(t.Context(), one, p)
		require.NoError(t, err, one.subject.name())
		require.Zero(t, r.tally.lost(), r.summary())
		require.Greater(t, r.tally.seen[answered], one.restarts, "there was load")
		require.Len(t, r.times, one.restarts)
		require.Equal(t, one.restarts+weighedLeast, r.restarts, "and those with an eye on memory")
		require.Positive(t, r.peak)
		t.Log(r.title, r.summary())
	}
}

// TestChaosLosesNothing is the short version of `make chaos`.
func TestChaosLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("kills a real gateway for a while")
	}
	dir := t.TempDir()
	built, err := build(t.Context(), dir)
	require.NoError(t, err)
	for _, mode := range []string{"exec", "spawn"} {
		r, err := runChaos(t.Context(), mode, filepath.Join(dir, mode), built, 10*time.Second, 1)
		require.NoError(t, err)
		all, err := keep(filepath.Join(dir, "chaos.jsonl"), []*slice{r})
		require.NoError(t, err)
		page := chaosPage(all)
		t.Log(page)
		if r.broken() > 0 {
			text, err := os.ReadFile(filepath.Join(dir, mode, "gateway.log"))
			t.Logf("the gateway's log: %s %v", text[max(0, len(text)-64<<10):], err)
		}
		require.Zero(t, r.broken(), r.FirstFault)
		require.Positive(t, r.Seen[answered])
	}
}

// A harness that cannot see a loss proves nothing.
func TestTheRecipeThatLosesIsCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("restarts real servers")
	}
	r, err := run(t.Context(), trial{&recipe{kind: "stop-start"}, 5, plainKinds, "", false, 50 * time.Millisecond, 0},
		plan{clients: 2, between: 50 * time.Millisecond})
	require.NoError(t, err)
	require.Positive(t, r.tally.seen[refused]+r.tally.seen[reset]+r.tally.seen[cut])
}

func TestTheJudgeSeesWhatIsLostDoubledAndOutOfOrder(t *testing.T) {
	tally := newTally()
	s := stream{c: &client{t: tally}, last: -1, tag: "x"}
	for _, number := range []string{"0", "1", "3", "3"} {
		require.NoError(t, s.take(sse.Event{Type: "response.in_progress", Data: `{"sequence_number":` + number + `}`}))
	}
	require.Equal(t, map[string]int{missed: 1, doubled: 1}, tally.seen)

	tally = newTally()
	tally.failure(fmt.Errorf("chat: %w", &refusal{"chat.send", "UNAVAILABLE", "the disk is full"}))
	tally.failure(&refusal{"chat.send", "INVALID_REQUEST", "no message"})
	require.Equal(t, map[string]int{failed: 1, wrong: 1}, tally.seen)

	tally = newTally()
	tally.answers = []time.Duration{30, 10, 45, 80}
	require.Equal(t, time.Duration(20), tally.gap(tally.began.Add(10), tally.began.Add(50)))
	require.Equal(t, []time.Duration{80}, tally.answers)
	require.Equal(t, time.Duration(40), tally.gap(tally.began.Add(60), tally.began.Add(120)), "until the end of the window")
}

func TestSlicesOfChaosAddUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chaos.jsonl")
	_, err := keep(path, []*slice{{Mode: "exec", Minutes: 1.5, Acked: 10, Done: map[string]int{"SIGKILL": 2}, Seen: map[string]int{answered: 9}}})
	require.NoError(t, err)
	all, err := keep(path, []*slice{{Mode: "spawn", Minutes: 2, Acked: 5, Done: map[string]int{"SIGKILL": 1}, Seen: map[string]int{notFound: 1}, FirstFault: "lost: one"}})
	require.NoError(t, err)
	require.Equal(t, []string{"exec", "spawn"}, []string{all[0].Mode, all[1].Mode})
	sum := total(all)
	require.Equal(t, []any{3.5, 15, 3, 1}, []any{sum.Minutes, sum.Acked, sum.Done["SIGKILL"], sum.broken()})
	require.Contains(t, chaosPage(all), "lost: one")
	require.NoError(t, os.WriteFile(path, []byte("not a slice\n"), 0o600))
	_, err = keep(path, nil)
	require.ErrorContains(t, err, "chaos.jsonl")
}
