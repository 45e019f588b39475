package daemon

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/internal/statedir"
	"gateway/queue"
)

// Whatever is opened while the gateway is released has exactly one owner, who closes it.
func TestWhatIsOpenedTooLateIsClosedByWhoeverOpenedIt(t *testing.T) {
	const opened = 100
	var tn tenure
	var kept, closed [opened]bool
	var effects sync.WaitGroup
	for i := range opened {
		effects.Go(func() {
			err := tn.keep(func() { kept[i] = true }, func() { closed[i] = true })
			if closed[i] != (err != nil) {
				panic("it is closed exactly when it was not kept")
			}
		})
	}
	tn.end()
	released := kept // without waiting for the effects
	effects.Wait()
	require.Equal(t, kept, released, "nothing was kept after the end")
	for i := range opened {
		require.NotEqual(t, kept[i], closed[i])
	}
	require.ErrorIs(t, tn.keep(func() { t.Error("kept") }, nil), errTooLate)
}

// A start whose store opens after the gateway has ended leaves nothing behind, and until then nobody else gets the lock.
func TestAStoreThatOpensTooLateIsClosedBeforeTheLockIsReleased(t *testing.T) {
	x := explored(t, "in-process")
	dir := x.loaded.Config.StateDir
	synctest.Test(t, func(t *testing.T) {
		w := &world{over: make(chan struct{}), exited: make(chan struct{})}
		on := w.system()
		on.acquire = realSystem().acquire
		on.lanes = func(ctx context.Context, path string, cfg queue.Config) (lanes, error) {
			if err := w.yes(context.Background(), "open the store", false); err != nil {
				return nil, err
			}
			return realSystem().lanes(context.WithoutCancel(ctx), path, cfg)
		}
		x.start(t, w, on)
		<-w.exited // start_timeout, and what the release waits
		require.Equal(t, fsm.Stopped, w.snapshot().State)
		require.True(t, statedir.Owned(dir), "the store may still be opened")

		_, asked := w.look()
		require.Len(t, asked, 1)
		asked[0].reply <- "ok"
		synctest.Wait()
		require.False(t, statedir.Owned(dir))
		again, err := realSystem().lanes(t.Context(), filepath.Join(dir, statedir.StoreFile), queue.Config{
			Runner: fakeAgents{}, Lanes: map[string]int{"main": 1}, MaxAttempts: 1, OnInterrupt: queue.RetryTurn, MaxQueued: 1, MaxQueuedPerSession: 1,
			MaxOutput: 1, MaxInput: 1, RetryBackoff: time.Second, Retention: time.Hour, CancelGrace: time.Second, Log: zerolog.Nop(),
		})
		require.NoError(t, err)
		require.False(t, again.Crashed(), "it was closed")
		require.NoError(t, again.Close(t.Context()))
	})
}
