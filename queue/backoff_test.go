package queue

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	waitLimit = time.Minute
	waitTick  = time.Millisecond
)

var errTest = errors.New("the test says no")

func TestATemporaryErrorKeepsTheHeadOfTheSessionAndWaitsLongerEachTime(t *testing.T) {
	path := storePath(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGated()
		q := openQueue(t, path, testConfig(t, g)) // three attempts, a second to begin with
		q.Resume()
		first := accept(t, q, "s", "1")
		accept(t, q, "s", "2")
		began := time.Now()
		var waited []time.Duration
		for range 3 {
			work := g.next(t)
			require.Equal(t, first.ID, work.Turn.ID, "the next of the session waits behind it")
			waited = append(waited, time.Since(began))
			began = time.Now()
			require.NoError(t, work.Emit("partial"))
			work.end <- Temporary(errTest, 0)
		}
		turn := wait(t, q, first.ID)
		require.Equal(t, Failed, turn.Status)
		require.Equal(t, errTest.Error(), turn.Error)
		require.Equal(t, 3, turn.Attempt)
		require.Nil(t, turn.NotBefore)
		// Half as much more or less is chance, so that turns which failed together do not come back together.
		require.InDelta(t, time.Second, waited[1], float64(550*time.Millisecond))
		require.InDelta(t, 2*time.Second, waited[2], float64(1050*time.Millisecond))
		events := log(t, q, first.ID)
		require.Contains(t, events, "interrupted/1 "+errTest.Error())
		require.Contains(t, events, "interrupted/2 "+errTest.Error())
		require.Equal(t, "failed/3 "+errTest.Error(), events[len(events)-1])
		g.next(t).end <- nil
		closeQueue(t, q)
	})
}

func TestATemporaryErrorMayAskForMoreTime(t *testing.T) {
	path := storePath(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGated()
		q := openQueue(t, path, testConfig(t, g))
		q.Resume()
		turn := accept(t, q, "s", "1")
		g.next(t).end <- Temporary(errTest, 20*time.Second)
		began := time.Now()
		synctest.Wait()
		place, _ := q.Place(turn.ID)
		require.Equal(t, "its last attempt failed; the next one starts soon", place.Reason)
		held, err := q.Turn(t.Context(), turn.ID)
		require.NoError(t, err)
		require.Equal(t, 20*time.Second, held.NotBefore.Sub(began))
		time.Sleep(19 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, q.Stats().Queued)
		time.Sleep(time.Second)
		work := g.next(t)
		require.Nil(t, work.Turn.NotBefore)
		work.end <- nil
		require.Equal(t, Completed, wait(t, q, turn.ID).Status)
		closeQueue(t, q)
	})
}

func TestATurnThatMayNotRunTwiceFailsAtOnce(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	turn, _ := send(t, q, NewTurn{Input: "x", OnInterrupt: FailTurn})
	g.next(t).end <- Temporary(errTest, 0)
	require.Equal(t, Failed, wait(t, q, turn.ID).Status)
	require.NoError(t, Temporary(nil, time.Second))
}

func TestAHeldTurnCanBeCancelledAndLetsTheNextOneOn(t *testing.T) {
	g := newGated()
	q := openQueue(t, storePath(t), testConfig(t, g))
	q.Resume()
	held := accept(t, q, "s", "1")
	next := accept(t, q, "s", "2")
	g.next(t).end <- Temporary(errTest, time.Minute)
	require.Eventually(t, func() bool { return q.Stats().Running == 0 }, waitLimit, waitTick)
	_, err := q.Cancel(t.Context(), held.ID)
	require.NoError(t, err)
	work := g.next(t)
	require.Equal(t, next.ID, work.Turn.ID)
	work.end <- nil
}

func TestAPauseBetweenAttemptsOutlivesARestartAndAClockThatJumps(t *testing.T) {
	path := storePath(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGated()
		q := openQueue(t, path, testConfig(t, g))
		q.Resume()
		turn := accept(t, q, "s", "1")
		g.next(t).end <- Temporary(errTest, 30*time.Second)
		synctest.Wait()
		closeQueue(t, q)
		time.Sleep(10 * time.Second)

		q = openQueue(t, path, testConfig(t, g))
		q.Resume()
		synctest.Wait()
		require.Equal(t, 1, q.Stats().Queued)
		closeQueue(t, q)

		// The clock was set back by an hour: the pause is never longer than the longest one.
		store, err := openSQLite(t.Context(), path)
		require.NoError(t, err)
		_, err = store.w.conn.ExecContext(t.Context(), `UPDATE turns SET not_before = ?`, time.Now().Add(time.Hour).UnixMicro())
		require.NoError(t, err)
		require.NoError(t, store.close())
		q = openQueue(t, path, testConfig(t, g))
		q.Resume()
		began := time.Now()
		time.Sleep(maxBackoff)
		work := g.next(t)
		require.Equal(t, turn.ID, work.Turn.ID)
		require.Equal(t, maxBackoff, time.Since(began))
		work.end <- nil
		wait(t, q, turn.ID)
		closeQueue(t, q)
	})
}

func TestATurnThatIsThereAtEveryCrashWaitsFromTheSecondOneOn(t *testing.T) {
	cfg := testConfig(t, echo)
	require.Zero(t, cfg.pauseAfterCrash(1))
	require.InDelta(t, time.Second, cfg.pauseAfterCrash(2), float64(550*time.Millisecond))
	require.LessOrEqual(t, cfg.pauseAfter(1000), maxBackoff+maxBackoff/2)
}
