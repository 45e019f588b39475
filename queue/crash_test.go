package queue

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// crashChild, in the environment, makes the test binary a gateway that is going to be killed: it names the
// store.
const crashChild = "QUEUE_CRASH_CHILD"

const crashSessions = 20

// runCrashChild accepts and runs turns until it is killed. Every acknowledged turn is a line on stdout:
// its session, its number in the session, its id.
func runCrashChild(path string) {
	q, err := Open(context.Background(), path, Config{
		Runner: echo, Lanes: map[string]int{"main": 8},
		MaxAttempts: 1000, OnInterrupt: RetryTurn, MaxQueued: 100_000, MaxQueuedPerSession: 1000,
		MaxOutput: 1 << 20, Retention: time.Hour, CancelGrace: time.Second, RetryBackoff: time.Millisecond, MaxInput: 1 << 20, Log: zerolog.Nop(),
	})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	q.Resume()
	prefix := fmt.Sprint(q.Stats().Epoch)
	var stdout sync.Mutex
	var clients sync.WaitGroup
	for s := range crashSessions {
		clients.Go(func() {
			for i := 0; ; i++ {
				session := fmt.Sprint("s", s)
				t, _, err := q.Accept(context.Background(), NewTurn{
					Session: session, Lane: "main", Agent: "echo", Input: fmt.Sprintf("%s.%d", prefix, i),
				})
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				stdout.Lock()
				fmt.Println(session, t.Input, t.ID)
				stdout.Unlock()
				if i%8 == 7 { // stay below the limits
					_, _ = q.Wait(context.Background(), t.ID)
				}
			}
		})
	}
	clients.Wait()
}

func TestKilledProcessLosesNothingThatItAcknowledged(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills processes")
	}
	path := storePath(t)
	acknowledged := map[string][]string{} // ids by session, in order
	inputs := map[string]string{}
	for round := range 4 {
		killAfter(t, path, 200+150*round, func(session, input, id string) {
			acknowledged[session] = append(acknowledged[session], id)
			inputs[id] = input
		})
	}

	r := newRecorder(map[string]int{"main": 4})
	cfg := testConfig(t, r)
	cfg.MaxAttempts = 1000
	q := openQueue(t, path, cfg)
	require.EqualValues(t, 5, q.Stats().Epoch)
	q.Resume()
	for session, ids := range acknowledged {
		for _, id := range ids {
			turn := wait(t, q, id)
			require.True(t, turn.Status.Final())
			require.Equal(t, inputs[id], turn.Input)
		}
		requireOneEndEachInOrder(t, q, session, ids)
	}
	require.Empty(t, r.problems)
}

// killAfter starts a child on the store and kills it in the middle of its load.
func killAfter(t *testing.T, path string, acknowledgements int, each func(session, input, id string)) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), crashChild+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines := bufio.NewScanner(out)
	seen := 0
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		require.Len(t, fields, 3, "the child says %q", lines.Text())
		each(fields[0], fields[1], fields[2])
		if seen++; seen == acknowledgements {
			require.NoError(t, child.Process.Kill())
		}
	}
	require.Error(t, child.Wait(), "it was killed")
	require.GreaterOrEqual(t, seen, acknowledgements)
}

// requireOneEndEachInOrder checks the event logs of a session: every turn ends once, and none starts before
// the one before it ended.
func requireOneEndEachInOrder(t *testing.T, q *Queue, session string, acknowledged []string) {
	t.Helper()
	var all []Turn
	f := Filter{Session: session, Limit: 1000}
	for {
		page, err := q.Turns(t.Context(), f)
		require.NoError(t, err)
		all = append(all, page...)
		if len(page) < f.Limit {
			break
		}
		f.Before = page[len(page)-1].ID
	}
	at := 0
	var ended time.Time
	for _, found := range slices.Backward(all) {
		turn := wait(t, q, found.ID) // accepted but perhaps never acknowledged
		events, err := q.store.events(t.Context(), turn.ID, 0, 1000)
		require.NoError(t, err)
		finals := 0
		for j, e := range events {
			require.EqualValues(t, j+1, e.Seq)
			if e.Type == EventStarted {
				require.False(t, e.At.Before(ended), "started before the turn before it ended")
			}
			if e.Type.Final() {
				finals++
			}
		}
		require.Equal(t, 1, finals)
		require.Equal(t, turn.LastEvent, events[len(events)-1].Seq)
		ended = *turn.FinishedAt
		if at < len(acknowledged) && acknowledged[at] == turn.ID {
			at++
		}
	}
	require.Equal(t, len(acknowledged), at, "acknowledged turns of session %s, in their order", session)
}

func TestCrashCostsAnAttemptAndTooManyFailTheTurn(t *testing.T) {
	path := storePath(t)
	g := newGated()
	var id string
	for n := 1; n <= 3; n++ {
		q, store := openFaulty(t, path, testConfig(t, g))
		q.Resume()
		if n == 1 {
			id = accept(t, q, "s", "deadly").ID
			accept(t, q, "s", "behind")
		}
		work := g.next(t)
		require.Equal(t, id, work.Turn.ID, "an interrupted turn is at the head of its session")
		require.Equal(t, n, work.Turn.Attempt)
		require.Equal(t, n, work.Turn.Runs)
		crash(t, q, store)
	}
	q := openQueue(t, path, testConfig(t, g))
	turn := wait(t, q, id)
	require.Equal(t, Failed, turn.Status)
	require.Equal(t, "interrupted by a crash 3 times", turn.Error)
	require.Equal(t, []string{
		"started/1", "interrupted/1 interrupted by a crash", "started/2", "interrupted/2 interrupted by a crash",
		"started/3", "failed/3 interrupted by a crash 3 times",
	}, log(t, q, id))

	q.Resume()
	work := g.next(t)
	require.Equal(t, "behind", work.Turn.Input, "the lane goes on")
	work.end <- nil
	_, err := q.Retry(t.Context(), id)
	require.NoError(t, err)
	work = g.next(t)
	require.Equal(t, 1, work.Turn.Attempt)
	require.Equal(t, 4, work.Turn.Runs, "a retry begins the attempts again, not the runs")
	work.end <- nil
	require.Equal(t, Completed, wait(t, q, id).Status)
}

func TestCrashFailsATurnThatAsksForIt(t *testing.T) {
	path := storePath(t)
	g := newGated()
	cfg := testConfig(t, g)
	cfg.OnInterrupt = FailTurn
	q, store := openFaulty(t, path, cfg)
	q.Resume()
	turn := accept(t, q, "s", "x")
	require.NoError(t, g.next(t).Emit("half"))
	for _, err := range q.Follow(t.Context(), turn.ID, 1) {
		require.NoError(t, err)
		break // the text is on disk
	}
	crash(t, q, store)
	q = openQueue(t, path, cfg)
	got := wait(t, q, turn.ID)
	require.Equal(t, Failed, got.Status)
	require.Equal(t, "interrupted by a crash", got.Error)
	require.Equal(t, []string{"started/1", "delta/1 half", "failed/1 interrupted by a crash"}, log(t, q, turn.ID))
}

func TestLateEndOfAnOlderGenerationChangesNothing(t *testing.T) {
	path := storePath(t)
	g := newGated()
	old, err := Open(t.Context(), path, testConfig(t, g))
	require.NoError(t, err)
	defer closeQueue(t, old)
	old.Resume()
	turn := accept(t, old, "s", "x")
	late := g.next(t)
	require.NoError(t, late.Emit("old"))

	q := openQueue(t, path, testConfig(t, g))
	q.Resume()
	work := g.next(t)
	require.Equal(t, 2, work.Turn.Attempt)
	waited := make(chan error, 1)
	go func() {
		_, err := old.Wait(context.Background(), turn.ID)
		waited <- err
	}()

	late.end <- nil
	err = <-waited
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorContains(t, err, "fenced")
	_, _, err = old.Accept(t.Context(), NewTurn{Session: "s", Lane: "main", Agent: "a", Input: "y"})
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorContains(t, err, "fenced")

	require.NoError(t, work.Emit("new"))
	work.end <- nil
	require.Equal(t, "new", wait(t, q, turn.ID).Output)
	lines := log(t, q, turn.ID)
	require.Equal(t, []string{"started/2", "delta/2 new", "completed/2"}, lines[len(lines)-3:])
	require.NoError(t, old.Drain(t.Context(), ""), "nothing of the old generation runs any more")
	require.Equal(t, 1, old.Stats().Refused)
}

func TestNewerGenerationStopsTheStartsOfTheOlderOne(t *testing.T) {
	path := storePath(t)
	g := newGated()
	old, err := Open(t.Context(), path, testConfig(t, g))
	require.NoError(t, err)
	defer closeQueue(t, old)
	turn := accept(t, old, "s", "x")
	q := openQueue(t, path, testConfig(t, echo))
	old.Resume()
	_, err = old.Wait(t.Context(), turn.ID)
	require.ErrorContains(t, err, "fenced")
	q.Resume()
	require.Equal(t, 1, wait(t, q, turn.ID).Attempt)
	require.Empty(t, g.turns, "the old one ran nothing")
}

func TestEndOfAnotherAttemptIsRefusedByTheStore(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	turn := accept(t, q, "s", "x")
	work := g.next(t)
	var seq int64
	q.scheduler.look(func() { seq = q.scheduler.places[turn.ID].seq })

	stale := turn
	stale.Status = Completed
	end := &endTurn{seq: seq, number: 7, turn: stale, events: []Event{{Seq: 2, Type: EventCompleted}}}
	text := &appendText{seq: seq, number: 7, event: Event{Seq: 2, Type: EventDelta, Text: "stale"}}
	start := &startTurn{seq: seq, at: now()}
	done := make(chan struct{})
	fine := &retryTurn{progress: progress{done: done}, id: turn.ID, at: now()}
	require.NoError(t, q.store.commit(nil))
	ops := []operation{end, text, start, fine}
	store := q.store.(*sqliteStore)
	// The committer has nothing to do now: everything it was given is answered.
	require.NoError(t, store.commit(ops))
	require.ErrorIs(t, end.err, errRefused)
	require.ErrorIs(t, text.err, errRefused)
	require.ErrorIs(t, start.err, errRefused)
	require.ErrorIs(t, fine.err, ErrConflict)
	work.end <- nil
	require.Equal(t, []string{"started/1", "completed/1"}, log(t, q, wait(t, q, turn.ID).ID))
}

func TestFollowResumesWithoutGapAcrossCloseAndReopen(t *testing.T) {
	path := storePath(t)
	g := newGated()
	q := openQueue(t, path, testConfig(t, g))
	q.Resume()
	turn := accept(t, q, "s", "x")

	var seen []Event
	follow := func(q *Queue, last error) {
		t.Helper()
		var after int64
		if len(seen) > 0 {
			after = seen[len(seen)-1].Seq
		}
		var err error
		for e, failed := range q.Follow(context.Background(), turn.ID, after) {
			if err = failed; err == nil {
				seen = append(seen, e)
			}
		}
		require.ErrorIs(t, err, last)
	}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		follow(q, ErrClosed)
	}()
	work := g.next(t)
	for range 20 {
		require.NoError(t, work.Emit("a"))
	}
	closeQueue(t, q)
	<-followed

	q = openQueue(t, path, testConfig(t, g))
	q.Resume()
	go func() {
		work := g.next(t)
		for range 300 {
			_ = work.Emit("b")
		}
		work.end <- nil
	}()
	follow(q, nil)
	var text string
	for i, e := range seen {
		require.EqualValues(t, i+1, e.Seq, "no gap, none twice")
		if e.Type == EventInterrupted {
			text = ""
		} else {
			text += e.Text
		}
	}
	require.Equal(t, strings.Repeat("b", 300), text)
	require.Equal(t, EventCompleted, seen[len(seen)-1].Type)
	stored, err := q.Turn(t.Context(), turn.ID)
	require.NoError(t, err)
	require.Equal(t, stored.LastEvent, seen[len(seen)-1].Seq)
	require.Equal(t, stored.Output, text)

	follow(q, nil) // after the end there is nothing, at once
	require.Len(t, seen, int(stored.LastEvent))
}
