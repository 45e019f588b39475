package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Owned reports whether a gateway, or what is left of one, holds the instance lock of a state folder. It is for
// callers that wait for the end of a gateway, which releases the lock last, after the socket and the store. Whether
// a gateway may start, only [Acquire] decides.
//
// Owned asks the lock and not the lockfile: a process number names another process in another namespace, so that the
// gateway of a container looks dead from outside, or alive for ever when it was process 1. For an instant Owned holds
// the lock itself, shared; a gateway that starts in that instant tries again.
func Owned(dir string) bool {
	guard, err := os.Open(filepath.Join(dir, LockFile))
	if err != nil {
		return false
	}
	defer func() { _ = guard.Close() }() // which unlocks it
	return errors.Is(unix.Flock(int(guard.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Crashed reports whether the lockfile of a state folder exists although nobody holds the lock: its gateway crashed.
func Crashed(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, PIDFile))
	return err == nil && !Owned(dir)
}

// namesLiving reports whether the process that the lockfile of a state folder names is alive, as far as can
// be told from this process namespace. One that may not be signalled is.
func namesLiving(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, PIDFile))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return err == nil && pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) && !dying(pid)
}
