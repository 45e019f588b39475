package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

func TestAStateFolderOfADeadProcessIsNotOwned(t *testing.T) {
	dir := t.TempDir()
	dead := exec.CommandContext(t.Context(), "true")
	require.NoError(t, dead.Run())
	require.NoError(t, os.WriteFile(filepath.Join(dir, pidName), []byte(strconv.Itoa(dead.Process.Pid)+"\n"), 0o600))
	require.False(t, Owned(dir))
}
