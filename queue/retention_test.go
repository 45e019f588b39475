package queue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetentionBelievesAClockThatIsSetAheadAfterADay(t *testing.T) {
	year := 365 * 24 * time.Hour
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var c calendar
	hour := 0
	look := func(set time.Duration) time.Duration { // how far ahead retention takes the time to be
		ran := time.Duration(hour) * time.Hour
		hour++
		return c.look(start.Add(ran+set), ran).Sub(start.Add(ran))
	}
	for range 100 {
		require.Zero(t, look(0), "a clock that goes right is right")
	}
	for range believed - 1 {
		require.Zero(t, look(year))
	}
	require.Equal(t, year, look(year), "a day later")
	require.Zero(t, look(0), "back at once")
	require.Equal(t, -year, look(-year))
	for range believed - 1 {
		require.Equal(t, -year, look(0), "and right again a day later")
	}
	require.Zero(t, look(0))
}

// A machine without a battery begins in 1970 and is told the time later.
func TestAStartWithAWrongClockIsMendedByTheFirstGoodLook(t *testing.T) {
	wrong, right := time.Unix(4_000_000_000, 0), time.Unix(1_790_000_000, 0)
	var c calendar
	c.look(wrong, 0)
	require.Equal(t, right, c.look(right, 10*time.Minute), "a clock that was ahead prunes nothing")
	c = calendar{}
	c.look(time.Unix(0, 0), 0)
	require.Equal(t, time.Unix(600, 0), c.look(right, 10*time.Minute), "one that was behind is caught up with later")
}

func TestTheOrderOfAcceptanceTellsAgesThatTheClockGotWrong(t *testing.T) {
	store, err := openSQLite(t.Context(), storePath(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, store.close()) }()
	at := now()
	var seqs []int64
	for i, ago := range []time.Duration{
		3 * time.Hour,
		-8760 * time.Hour, // the clock was ahead
		2 * time.Hour,
		time.Minute,
		3 * time.Hour, // the clock was set back
	} {
		id := string(rune('a' + i))
		accepted := &acceptTurn{turn: Turn{ID: id, IdempotencyKey: id, Session: "s", Lane: "main", Agent: "a", Input: "x", OnInterrupt: RetryTurn, CreatedAt: at.Add(-ago)}}
		require.NoError(t, store.commit([]operation{accepted}))
		ended := &cancelTurn{seq: accepted.seq, at: at.Add(-ago)}
		require.NoError(t, store.commit([]operation{ended}))
		require.NoError(t, ended.err)
		seqs = append(seqs, accepted.seq)
	}
	old, next, err := store.aged(t.Context(), at.Add(-time.Hour), 0, 100)
	require.NoError(t, err)
	require.Zero(t, next)
	require.Equal(t, []int64{seqs[0], seqs[2]}, old)
}
