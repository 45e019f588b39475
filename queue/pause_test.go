package queue

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPausedLaneStartsNothingUntilItIsResumed(t *testing.T) {
	g := newGated()
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, g))
	q.Resume()
	accept(t, q, "runs", "x")
	running := g.next(t)
	lane, err := q.PauseLane(t.Context(), "main", true)
	require.NoError(t, err)
	require.True(t, lane.Paused)
	require.Equal(t, 1, lane.Running, "what runs goes on")
	waits := accept(t, q, "waits", "x")
	running.end <- nil
	closeQueue(t, q)

	q = openQueue(t, path, testConfig(t, g))
	q.Resume()
	elsewhere, _, err := q.Accept(t.Context(), NewTurn{Session: "e", Lane: "cron", Agent: "echo", Input: "x"})
	require.NoError(t, err)
	next := g.next(t)
	require.Equal(t, elsewhere.ID, next.Turn.ID, "a pause outlives a restart, and is one lane's")
	next.end <- nil
	place, ok := q.Place(waits.ID)
	require.True(t, ok)
	require.Equal(t, "the lane main is paused", place.Reason)
	_, err = q.PauseLane(t.Context(), "main", false)
	require.NoError(t, err)
	next = g.next(t)
	require.Equal(t, waits.ID, next.Turn.ID)
	next.end <- nil

	_, err = q.PauseLane(t.Context(), "nowhere", true)
	require.ErrorIs(t, err, ErrNoLane)
}

func TestAPausedSessionHoldsUpNobodyElse(t *testing.T) {
	g := newGated()
	path := storePath(t)
	cfg := testConfig(t, g)
	cfg.Lanes["main"] = 1
	q := openQueue(t, path, cfg)
	yes, no := true, false
	session, err := q.SetSession(t.Context(), "p", SessionChange{Paused: &yes})
	require.NoError(t, err)
	require.Equal(t, Session{Name: "p", Paused: true}, session, "it needs no turns yet")
	held := accept(t, q, "p", "x")
	free := accept(t, q, "f", "x")
	q.Resume()
	next := g.next(t)
	require.Equal(t, free.ID, next.Turn.ID)
	next.end <- nil
	wait(t, q, free.ID)
	place, _ := q.Place(held.ID)
	require.Equal(t, "its session is paused", place.Reason)

	// A turn of a paused session can still be cancelled, and one that runs is not touched.
	cancelled := accept(t, q, "p", "y")
	_, err = q.Cancel(t.Context(), cancelled.ID)
	require.NoError(t, err)
	closeQueue(t, q)

	q = openQueue(t, path, cfg)
	q.Resume()
	session, err = q.Session(t.Context(), "p")
	require.NoError(t, err)
	require.True(t, session.Paused)
	require.Equal(t, 1, session.Queued)
	session, err = q.SetSession(t.Context(), "p", SessionChange{Paused: &no})
	require.NoError(t, err)
	require.False(t, session.Paused)
	next = g.next(t)
	require.Equal(t, held.ID, next.Turn.ID)
	next.end <- nil
	wait(t, q, held.ID)
}

func TestSettingsAreBounded(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	q.scheduler.look(func() {
		for i := range maxSettings {
			q.scheduler.settings[fmt.Sprint("s", i)] = setting{paused: true}
		}
	})
	yes := true
	_, err := q.SetSession(t.Context(), "one too many", SessionChange{Paused: &yes})
	require.ErrorIs(t, err, ErrFull)
	_, err = q.SetSession(t.Context(), "s1", SessionChange{Paused: &yes})
	require.NoError(t, err)
}

func TestAWaitingTurnKnowsItsPlace(t *testing.T) {
	g := newGated()
	cfg := testConfig(t, g)
	cfg.Lanes["main"] = 1
	q := openQueue(t, storePath(t), cfg)
	first, second, third := accept(t, q, "s", "1"), accept(t, q, "s", "2"), accept(t, q, "s", "3")
	other := accept(t, q, "o", "1")
	place, waits := q.Place(first.ID)
	require.True(t, waits)
	require.Equal(t, Place{Ahead: 0, Reason: "the gateway starts no turns now", Since: first.CreatedAt}, place)
	q.Resume()
	running := g.next(t)
	_, waits = q.Place(first.ID)
	require.False(t, waits, "it runs")
	for _, want := range []struct {
		turn   Turn
		ahead  int
		reason string
	}{
		{second, 1, "1 turn of its session is before it"},
		{third, 2, "2 turns of its session are before it"},
		{other, 0, "the lane main is full: 1 of 1 run"},
	} {
		place, _ := q.Place(want.turn.ID)
		require.Equal(t, Place{Ahead: want.ahead, Reason: want.reason, Since: want.turn.CreatedAt}, place)
	}
	running.end <- nil
	for range 3 {
		g.next(t).end <- nil
	}
	wait(t, q, third.ID)
}
