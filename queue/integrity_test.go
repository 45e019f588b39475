package queue

import (
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// logged is a log that a test can read while it is written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func TestAStoreThatWasNotClosedIsLookedThrough(t *testing.T) {
	path := storePath(t)
	var log logged
	cfg := testConfig(t, echo)
	cfg.Log = zerolog.New(&log)
	q := openQueue(t, path, cfg)
	q.Resume()
	for range 200 {
		wait(t, q, accept(t, q, "s", strings.Repeat("x", 1000)).ID)
	}
	closeQueue(t, q)
	closeQueue(t, openQueue(t, path, cfg))
	require.False(t, log.has("did not close the store"))

	notClosed := func() {
		store, err := openSQLite(t.Context(), path)
		require.NoError(t, err)
		store.generation = -1 // it will not say that it was closed
		require.NoError(t, store.close())
	}
	notClosed()
	q = openQueue(t, path, cfg)
	require.Eventually(t, func() bool { return log.has("is whole") }, waitLimit, waitTick)
	require.False(t, q.Stats().Damaged)
	closeQueue(t, q)

	notClosed()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	middle := len(content) / 2 / 4096 * 4096
	for i := range 4096 {
		content[middle+i] = 0xA5
	}
	require.NoError(t, os.WriteFile(path, content, 0o600))
	q = openQueue(t, path, cfg)
	require.Eventually(t, func() bool { return q.Stats().Damaged && log.has("the store is damaged") }, waitLimit, waitTick)
	require.True(t, log.has("restore a backup"))
	turn := accept(t, q, "other", "still taken")
	q.Resume()
	require.Equal(t, Completed, wait(t, q, turn.ID).Status, "what is whole goes on")
}
