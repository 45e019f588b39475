package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTurnIsAcceptedRunAndKept(t *testing.T) {
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, echo))
	q.Resume()

	accepted := accept(t, q, "s", "hello")
	require.Equal(t, Queued, accepted.Status)
	final := wait(t, q, accepted.ID)
	require.Equal(t, Completed, final.Status)
	require.Equal(t, "hello", final.Output)
	require.Equal(t, 1, final.Attempt)

	stored, err := q.Turn(t.Context(), accepted.ID)
	require.NoError(t, err)
	require.Equal(t, stored, final, "what a waiter is told is what is on disk")
	require.Equal(t, []string{"started/1", "delta/1 hello", "completed/1"}, log(t, q, accepted.ID))

	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestAcceptedTurnIsOnDiskBeforeItIsAcknowledged(t *testing.T) {
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, echo))
	other, err := connect(path, "ro")
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()

	for i := range 20 {
		turn := accept(t, q, "s", fmt.Sprintf("text %d\x00\xff", i))
		var input string
		require.NoError(t, other.QueryRowContext(t.Context(), `SELECT input FROM turns WHERE id = ?`, turn.ID).Scan(&input))
		require.Equal(t, turn.Input, input)
	}
}

func TestWhatIsMissingOrUnknownIsRefused(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	_, _, err := q.Accept(t.Context(), NewTurn{Session: "s", Lane: "main", Agent: "echo"})
	require.ErrorContains(t, err, "input")
	_, _, err = q.Accept(t.Context(), NewTurn{
		Session: "s", Lane: "main", Agent: "echo", Input: "x", OnInterrupt: "perhaps",
	})
	require.ErrorContains(t, err, "perhaps")

	_, err = q.Turn(t.Context(), "none")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = q.Wait(t.Context(), "none")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = q.Cancel(t.Context(), "none")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = q.Retry(t.Context(), "none")
	require.ErrorIs(t, err, ErrNotFound)
	for _, err := range q.Follow(t.Context(), "none", 0) {
		require.ErrorIs(t, err, ErrNotFound)
	}

	cfg := testConfig(t, echo)
	cfg.MaxAttempts = 0
	_, err = Open(t.Context(), storePath(t), cfg)
	require.ErrorContains(t, err, "max attempts")
}

func TestKeyNamesOneTurnInItsSession(t *testing.T) {
	path := storePath(t)
	cfg := testConfig(t, echo)
	q := openQueue(t, path, cfg)
	n := NewTurn{Session: "s", Lane: "main", Agent: "echo", Input: "x", IdempotencyKey: "k"}
	first, created, err := q.Accept(t.Context(), n)
	require.NoError(t, err)
	require.True(t, created)

	again, created, err := q.Accept(t.Context(), n)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, first, again)

	for _, other := range []NewTurn{
		{Session: "s", Lane: "main", Agent: "echo", Input: "y", IdempotencyKey: "k"},
		{Session: "s", Lane: "main", Agent: "other", Input: "x", IdempotencyKey: "k"},
	} {
		_, _, err = q.Accept(t.Context(), other)
		require.ErrorIs(t, err, ErrKeyReused)
	}
	n.Session = "s2"
	elsewhere, created, err := q.Accept(t.Context(), n)
	require.NoError(t, err)
	require.True(t, created)
	require.NotEqual(t, first.ID, elsewhere.ID)

	closeQueue(t, q)
	q = openQueue(t, path, cfg)
	n.Session = "s"
	again, created, err = q.Accept(t.Context(), n)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, first, again)
	require.Equal(t, 2, q.Stats().Queued)
}

func TestKeyThatWasMadeNamesItsTurnToo(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	first := accept(t, q, "s", "x")
	require.NotEmpty(t, first.IdempotencyKey)
	n := NewTurn{Session: "s", Lane: "main", Agent: "echo", Input: "x", IdempotencyKey: first.IdempotencyKey}
	again, created, err := q.Accept(t.Context(), n)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, first, again)
	n.Input = "y"
	_, _, err = q.Accept(t.Context(), n)
	require.ErrorIs(t, err, ErrKeyReused)
	n.Session = "other"
	_, created, err = q.Accept(t.Context(), n)
	require.NoError(t, err)
	require.True(t, created)
}

func TestConcurrentRepeatsMakeOneTurn(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	q.Resume()
	var mu sync.Mutex
	ids, created := map[string]int{}, 0
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			turn, isNew, err := q.Accept(t.Context(), NewTurn{
				Session: "s", Lane: "main", Agent: "echo", Input: "x", IdempotencyKey: "k",
			})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[turn.ID]++
			if isNew {
				created++
			}
		})
	}
	clients.Wait()
	require.Len(t, ids, 1)
	require.Equal(t, 1, created)
	for id := range ids {
		require.Equal(t, Completed, wait(t, q, id).Status)
	}
	require.NoError(t, q.Drain(t.Context(), ""))
	require.Zero(t, q.Stats().Queued, "the reservations of repeats are given back")
}

func TestFullIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	cfg := testConfig(t, echo)
	cfg.MaxQueued, cfg.MaxQueuedPerSession = 5, 3
	q := openQueue(t, storePath(t), cfg)
	try := func(session, key string) error {
		_, _, err := q.Accept(t.Context(), NewTurn{
			Session: session, Lane: "main", Agent: "echo", Input: "x", IdempotencyKey: key,
		})
		return err
	}
	require.NoError(t, try("a", "1"))
	require.NoError(t, try("a", "2"))
	require.NoError(t, try("a", "3"))
	require.ErrorIs(t, try("a", "4"), ErrFull)
	require.NoError(t, try("a", "1"), "a repeat needs no room")
	require.NoError(t, try("b", "1"))
	require.NoError(t, try("b", "2"))
	require.ErrorIs(t, try("b", "3"), ErrFull)
	require.ErrorIs(t, try("c", "1"), ErrFull)

	turns, err := q.Turns(t.Context(), Filter{})
	require.NoError(t, err)
	require.Len(t, turns, 5)

	q.Resume()
	for _, turn := range turns {
		wait(t, q, turn.ID)
	}
	require.NoError(t, try("c", "1"), "there is room again")
}

func TestLimitHoldsUnderConcurrentAccepts(t *testing.T) {
	cfg := testConfig(t, echo)
	cfg.MaxQueued = 10
	q := openQueue(t, storePath(t), cfg)
	var accepted atomic.Int64
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			_, _, err := q.Accept(t.Context(), NewTurn{
				Session: fmt.Sprint(i), Lane: "main", Agent: "echo", Input: "x",
			})
			if err == nil {
				accepted.Add(1)
			} else if !errors.Is(err, ErrFull) {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	require.EqualValues(t, 10, accepted.Load())
	require.Equal(t, 10, q.Stats().Queued)
}

func TestAHandOverLeavesTheLogToTheNextGeneration(t *testing.T) {
	path := storePath(t)
	ctx := t.Context()
	size := func() int64 {
		st, err := os.Stat(path + "-wal")
		if err != nil {
			return 0
		}
		return st.Size()
	}
	q := openQueue(t, path, testConfig(t, echo))
	done := accept(t, q, "a", "one")
	q.Resume()
	wait(t, q, done.ID)
	q.Fold()
	pause(q)
	waits := accept(t, q, "a", "two")
	require.NoError(t, q.HandOver(ctx))
	require.NoError(t, q.HandOver(ctx), "again")
	require.Positive(t, size(), "the log is there")
	_, err := q.Turn(ctx, done.ID)
	require.ErrorIs(t, err, ErrClosed)

	next := openQueue(t, path, testConfig(t, echo))
	require.False(t, next.Crashed(), "it was closed")
	require.NoError(t, q.Close(ctx))
	require.NoError(t, q.Close(ctx), "again")
	require.Positive(t, size(), "the next generation has the log")
	got, err := next.Turn(ctx, done.ID)
	require.NoError(t, err)
	require.Equal(t, Completed, got.Status)
	next.Resume()
	require.Equal(t, Completed, wait(t, next, waits.ID).Status)
	closeQueue(t, next)
	require.Zero(t, size(), "who closes for good folds it")

	last := openQueue(t, path, testConfig(t, echo))
	require.False(t, last.Crashed())
	require.NoError(t, last.HandOver(ctx))
	require.NoError(t, last.Close(ctx), "nobody came")
	closeQueue(t, openQueue(t, path, testConfig(t, echo)))
}

func TestClosedQueueSaysSo(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	turn := accept(t, q, "s", "x")
	waited := make(chan error, 1)
	go func() {
		_, err := q.Wait(context.Background(), turn.ID)
		waited <- err
	}()
	closeQueue(t, q)
	require.ErrorIs(t, <-waited, ErrClosed)

	ctx := t.Context()
	_, _, err := q.Accept(ctx, NewTurn{Session: "s", Lane: "main", Agent: "echo", Input: "x"})
	require.ErrorIs(t, err, ErrClosed)
	_, err = q.Turn(ctx, turn.ID)
	require.ErrorIs(t, err, ErrClosed)
	_, err = q.Turns(ctx, Filter{})
	require.ErrorIs(t, err, ErrClosed)
	_, err = q.Sessions(ctx, 0)
	require.ErrorIs(t, err, ErrClosed)
	_, err = q.Cancel(ctx, turn.ID)
	require.ErrorIs(t, err, ErrClosed)
	_, err = q.Retry(ctx, turn.ID)
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, q.Drain(ctx, ""), ErrClosed)
	for _, err := range q.Follow(ctx, turn.ID, 0) {
		require.ErrorIs(t, err, ErrClosed)
	}
	q.Resume()
	pause(q)
	require.Len(t, q.Lanes(), 2)
	require.Empty(t, q.Active())
	require.Equal(t, 1, q.Stats().Queued)
	require.NoError(t, q.Close(ctx), "idempotent")
}

func TestListings(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	var ids []string
	for i := range 6 {
		turn, _, err := q.Accept(t.Context(), NewTurn{
			Session: []string{"a", "b"}[i%2], Lane: []string{"main", "main", "cron"}[i%3], Agent: "echo", Input: "x",
		})
		require.NoError(t, err)
		ids = append([]string{turn.ID}, ids...) // newest first
	}
	list := func(f Filter) (found []string) {
		turns, err := q.Turns(t.Context(), f)
		require.NoError(t, err)
		for _, turn := range turns {
			found = append(found, turn.ID)
		}
		return found
	}
	require.Equal(t, ids, list(Filter{}))
	require.Equal(t, ids, list(Filter{Status: []Status{Queued, Running}}))
	require.Empty(t, list(Filter{Status: []Status{Completed}}))
	require.Equal(t, ids[:2], list(Filter{Limit: 2}))
	require.Equal(t, ids[2:4], list(Filter{Limit: 2, Before: ids[1]}))
	require.Equal(t, []string{ids[1], ids[3], ids[5]}, list(Filter{Session: "a"}))
	require.Equal(t, []string{ids[0], ids[3]}, list(Filter{Lane: "cron"}))
	require.Empty(t, list(Filter{Agent: "other"}))

	_, err := q.Cancel(t.Context(), ids[5])
	require.NoError(t, err)
	sessions, err := q.Sessions(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, sessions, 2)
	require.Equal(t, "a", sessions[0].Name, "used last")
	require.Equal(t, []int{2, 0, 3}, []int{sessions[0].Queued, sessions[0].Running, sessions[0].Turns})

	lanes := q.Lanes()
	require.Equal(t, []string{"cron", "main"}, []string{lanes[0].Name, lanes[1].Name})
	require.Equal(t, []int{2, 3}, []int{lanes[0].Queued, lanes[1].Queued})
	oldest, err := q.Turn(t.Context(), ids[4])
	require.NoError(t, err)
	require.Equal(t, oldest.CreatedAt, *lanes[1].OldestQueuedAt)
}

func TestFinishedTurnsAreForgottenAfterTheRetention(t *testing.T) {
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, echo))
	waiting, _, err := q.Accept(t.Context(), NewTurn{Session: "w", Lane: "gone", Agent: "echo", Input: "x"})
	require.NoError(t, err)
	q.Resume()
	wait(t, q, waiting.ID)
	pause(q)
	waiting = accept(t, q, "w", "still waits")
	n := NewTurn{Session: "s", Lane: "main", Agent: "echo", Input: "x", IdempotencyKey: "k"}
	var old []string
	q.Resume()
	for i := range 2*pruneAtOnce + 7 {
		n.IdempotencyKey = fmt.Sprint(i)
		turn, _, err := q.Accept(t.Context(), n)
		require.NoError(t, err)
		old = append(old, turn.ID)
	}
	for _, id := range append(old, waiting.ID) {
		wait(t, q, id)
	}
	pause(q)
	waiting = accept(t, q, "w", "waits for ever")

	pruned, err := q.prune(t.Context(), beforeTurn(t, q, old[0]))
	require.NoError(t, err)
	require.Zero(t, pruned, "nothing is older than the oldest")
	pruned, err = q.prune(t.Context(), now().Add(time.Second))
	require.NoError(t, err)
	require.Equal(t, len(old)+2, pruned)

	turns, err := q.Turns(t.Context(), Filter{})
	require.NoError(t, err)
	require.Len(t, turns, 1)
	require.Equal(t, waiting.ID, turns[0].ID)
	var events, keys int
	require.NoError(t, q.store.(*sqliteStore).reads.QueryRowContext(t.Context(),
		`SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM keys)`).Scan(&events, &keys))
	require.Zero(t, events)
	require.Zero(t, keys)
	_, created, err := q.Accept(t.Context(), n)
	require.NoError(t, err)
	require.True(t, created, "the key is free again")
}
