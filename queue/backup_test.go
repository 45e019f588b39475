package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestABackupHoldsWhatWasAcknowledgedBeforeItBegan(t *testing.T) {
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, echo))
	q.Resume()
	var before []Turn
	for i := range 200 {
		before = append(before, accept(t, q, fmt.Sprint("s", i%7), fmt.Sprint(i)))
	}
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() { // and nobody waits for it
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				accept(t, q, "meanwhile", fmt.Sprint(i))
			}
		}
	})
	to := filepath.Join(t.TempDir(), "backup.db")
	turns, err := Backup(t.Context(), path, to, false)
	require.NoError(t, err)
	require.GreaterOrEqual(t, turns, int64(200))
	close(stop)
	busy.Wait()

	st, err := os.Stat(to)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	_, err = Backup(t.Context(), path, to, false)
	require.ErrorContains(t, err, "--force")
	_, err = Backup(t.Context(), path, to, true)
	require.NoError(t, err)
	require.NoFileExists(t, to+".part")

	copied := openQueue(t, to, testConfig(t, echo))
	copied.Resume()
	for _, turn := range before {
		require.Equal(t, Completed, wait(t, copied, turn.ID).Status)
	}
}

func TestABackupThatCannotBeMadeLeavesNothingBehind(t *testing.T) {
	path, dir := storePath(t), t.TempDir()
	to := filepath.Join(dir, "backup.db")
	_, err := Backup(t.Context(), path, to, false)
	require.ErrorContains(t, err, "\nTry: ", "there is no store")
	require.NoError(t, os.WriteFile(path, []byte("this is a diary, and no database at all"), 0o600))
	_, err = Backup(t.Context(), path, to, false)
	require.ErrorContains(t, err, "\nTry: ")
	_, err = Backup(t.Context(), path, filepath.Join(dir, "none", "backup.db"), false)
	require.ErrorContains(t, err, "\nTry: ")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
