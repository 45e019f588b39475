package statedir

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// The files of a state folder. There are no others, but for those that a write leaves behind when the gateway is
// killed in the middle of it: .new beside a file that is written anew, identity-*.new, and room-* from the check for
// free space. They may be deleted.
const (
	// LockFile carries the flock that decides which process owns the folder. Written by [Acquire]. Never delete it while
	// a gateway runs: the next one would lock another file.
	LockFile = "gateway.lock"
	// PIDFile names the owner's process, for people. Written by the owner of the lock, removed at the end. May be deleted.
	PIDFile = "gateway.pid"
	// OwnerFile is an [Owner] as JSON, for a second starter and for `doctor`. Written by the owner of the lock. May be
	// deleted.
	OwnerFile = "gateway.json"
	// SocketFile is the control socket. Made by the owner of the lock, removed at the end. Local commands cannot connect
	// without it.
	SocketFile = "gateway.sock"
	// JournalFile is the [Journal]. Written by the owner of the lock. May be deleted, with the history that it holds.
	JournalFile = "lifecycle.jsonl"
	// OldJournalFile is the journal before the last time that it was begun anew. As JournalFile.
	OldJournalFile = JournalFile + ".1"
	// StartsFile is a [FailedStarts] as JSON. Written by the owner of the lock, removed by a start that succeeds. May be
	// deleted; the next start does not wait then.
	StartsFile = "starts.json"
	// IdentityFile is the private key of [Identity]. Written once, by whoever asks first. A gateway whose key was deleted
	// has a new identity.
	IdentityFile = "identity.key"
	// StoreFile is the store of sessions and turns, which package queue writes; beside it are its log, -wal, and the log's
	// index, -shm. Deleting any of them loses turns.
	StoreFile = "gateway.db"
)

// writeJSON replaces a file of the folder by the value as JSON: a reader finds the old file or the new one, whole.
func writeJSON(dir, name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// readJSON reads what writeJSON wrote.
func readJSON(dir, name string, value any) error {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, value)
}
