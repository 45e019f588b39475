package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Owned reports whether a gateway, or what is left of one, holds the instance lock of a state folder. It is
// for who waits for the end of a gateway: the lock is the last that an end lets go of, after the socket and
// the store. Whether one may start, only [Acquire] says.
//
// It asks the lock and not the lockfile: a process number means another process in another namespace, so
// that the gateway of a container looks dead from outside, or alive for ever when it was process 1. It does
// so by taking the lock for an instant, shared; a gateway that starts in that instant tries again.
func Owned(dir string) bool {
	guard, err := os.Open(filepath.Join(dir, guardName))
	if err != nil {
		return false
	}
	defer func() { _ = guard.Close() }() // which lets go of it
	return errors.Is(unix.Flock(int(guard.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Left reports whether the lockfile of a state folder is there although nobody holds the lock: its gateway died.
func Left(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, pidName))
	return err == nil && !Owned(dir)
}

// namesLiving reports whether the process that the lockfile of a state folder names is alive, as far as can
// be told from this process namespace. One that may not be signalled is.
func namesLiving(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, pidName))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return err == nil && pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) && !dying(pid)
}
