package statedir

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAStateFolderIsOwnedAsLongAsItsLockIsHeld(t *testing.T) {
	dir := t.TempDir()
	require.False(t, Owned(dir))
	lock, err := Acquire(dir)
	require.NoError(t, err)
	require.True(t, Owned(dir))
	require.NoError(t, lock.Release())
	require.False(t, Owned(dir))
}

func TestTheLockfileDoesNotSayWhetherAStateFolderIsOwned(t *testing.T) {
	dead := exec.CommandContext(t.Context(), "true")
	require.NoError(t, dead.Run())
	for name, pid := range map[string]int{"dead": dead.Process.Pid, "process 1, which is alive everywhere": 1, "this one": os.Getpid()} {
		dir := t.TempDir()
		named := filepath.Join(dir, PIDFile)
		require.NoError(t, os.WriteFile(named, []byte(strconv.Itoa(pid)+"\n"), 0o600))
		require.False(t, Owned(dir), name)
		lock, err := Acquire(dir)
		require.NoError(t, err, name)
		require.NoError(t, os.WriteFile(named, []byte(strconv.Itoa(pid)+"\n"), 0o600)) // as seen from another namespace
		require.True(t, Owned(dir), name)
		require.True(t, Owned(dir), "%s: the question takes nothing away", name)
		require.NoError(t, lock.Release(), name)
		require.False(t, Owned(dir), name)
	}
}

// A start that meets the question in its instant is not refused.
func TestAStartIsNotRefusedByWhoAsks(t *testing.T) {
	dir := t.TempDir()
	lock, err := Acquire(dir)
	require.NoError(t, err)
	require.NoError(t, lock.Release())
	done := make(chan struct{})
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					Owned(dir)
				}
			}
		})
	}
	for range 50 {
		lock, err := Acquire(dir)
		require.NoError(t, err)
		require.NoError(t, lock.Release())
	}
	close(done)
	asking.Wait()
}
