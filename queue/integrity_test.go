package queue

import (
	"errors"
	"io/fs"
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
	require.Eventually(t, func() bool { return log.has("found no damage") }, waitLimit, waitTick)
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

func TestInspectTellsWhatAStoreHolds(t *testing.T) {
	path := storePath(t)
	_, err := Inspect(t.Context(), path)
	require.ErrorIs(t, err, fs.ErrNotExist)

	q := openQueue(t, path, testConfig(t, echo))
	q.Resume()
	wait(t, q, accept(t, q, "s", "x").ID)
	closeQueue(t, q)
	found, err := Inspect(t.Context(), path)
	require.NoError(t, err)
	require.Equal(t, Inspection{Turns: 1, Schema: found.Known, Known: found.Known}, found)
	require.NoFileExists(t, path+"-wal")
	require.NoFileExists(t, path+"-shm")

	db, err := connect(path, "rw")
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `PRAGMA user_version = 9999`)
	require.NoError(t, errors.Join(err, db.Close()))
	_, err = Inspect(t.Context(), path)
	require.ErrorContains(t, err, "written by a newer version")

	require.NoError(t, os.WriteFile(path+"-wal", []byte("a log without its index"), 0o600))
	_, err = Inspect(t.Context(), path)
	require.ErrorIs(t, err, ErrNoIndex)
	require.NoFileExists(t, path+"-shm")

	require.NoError(t, errors.Join(os.Remove(path+"-wal"), os.WriteFile(path, []byte(strings.Repeat("no store ", 1000)), 0o600)))
	_, err = Inspect(t.Context(), path)
	require.ErrorContains(t, err, "damaged or not a database")
}
