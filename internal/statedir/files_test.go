package statedir

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The store is package queue's.
func TestTheFolderHoldsTheFilesThatAreNamed(t *testing.T) {
	dir := t.TempDir()
	lock, err := Acquire(dir)
	require.NoError(t, err)
	require.NoError(t, lock.Describe(Owner{PID: os.Getpid()}))
	require.NoError(t, FailedStarts{Count: 1}.Write(dir))
	require.NoError(t, Room(dir))
	_, err = Identity(dir)
	require.NoError(t, err)
	socket, err := ListenSocket(t.Context(), dir)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(dir+"/"+JournalFile, make([]byte, journalLimit+1), 0o600))
	journal := OpenJournal(dir)
	journal.Add("line")
	require.Zero(t, journal.Close())
	var names []string
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.ElementsMatch(t, []string{
		LockFile, PIDFile, OwnerFile, SocketFile, JournalFile, OldJournalFile, StartsFile, IdentityFile,
	}, names)
	require.NoError(t, socket.Close())
	require.NoError(t, lock.Release())
}
