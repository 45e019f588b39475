// Package statedir is the state folder and every file in it: the instance lock, the owner's name, the journal, the
// count of failed starts, the control socket and the identity.
//
// The invariant: for one state folder there is at most one gateway that holds the instance lock, and a restart never
// releases the lock.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nightlyone/lockfile"
	"golang.org/x/sys/unix"
)

// Owner describes who holds the lock, for messages and for `status`. The zero value is an unknown owner.
type Owner struct {
	PID     int       `json:"pid"`
	BootID  string    `json:"boot_id"`
	Address string    `json:"address"` // empty until it listens
	Since   time.Time `json:"since"`
}

// HeldError is returned when another gateway holds the lock. Owner is zero when it could not be read.
type HeldError struct {
	Dir   string
	Owner Owner
}

func (e *HeldError) Error() string {
	if e.Owner.PID == 0 {
		return fmt.Sprintf("a gateway already runs with the state folder %s", e.Dir)
	}
	at := ""
	if e.Owner.Address != "" {
		at = ", listening on " + e.Owner.Address
	}
	return fmt.Sprintf("a gateway already runs with the state folder %s: pid %d%s, since %s",
		e.Dir, e.Owner.PID, at, e.Owner.Since.Format(time.RFC3339))
}

// UnusableError is returned when the state folder cannot be used: it cannot be made, or is not writable.
type UnusableError struct {
	Dir string
	Err error
}

func (e *UnusableError) Error() string {
	return fmt.Sprintf("the state folder %s cannot be used: %v", e.Dir, e.Err)
}
func (e *UnusableError) Unwrap() error { return e.Err }

// Lock is the instance lock: an flock, under which nightlyone/lockfile names the owner. The flock decides. A lockfile
// alone lets two starters replace a stale file at once, and a reused process number passes for a living owner. The zero
// value is not usable: [Acquire] and [Adopt] make one.
type Lock struct {
	dir   string
	guard *os.File
	pid   lockfile.Lockfile // empty until Claim
}

// remnantWait is how long Acquire waits for what is left of a gateway that was killed: a child between fork and exec
// holds the lock's descriptor for an instant longer.
const remnantWait = 2 * time.Second

// asks is how often Acquire tries when the owner seems alive. [Owned] holds the lock for an instant. After a reboot,
// or in a container, the process number of a dead owner is often that of a living process.
const asks = 3

// Acquire locks the state folder, an absolute path, and creates the folder with mode 0700 when it is missing. When
// another gateway holds the lock, the error is a [HeldError], within some 20 ms. When the owner is dead, Acquire waits
// for its remnants, at most two seconds. An unusable folder is a [UnusableError].
func Acquire(dir string) (*Lock, error) {
	deadline := time.Now().Add(remnantWait)
	for asked := 1; ; asked++ {
		l, err := tryAcquire(dir)
		if _, held := errors.AsType[*HeldError](err); !held || (asked >= asks && namesLiving(dir)) || time.Now().After(deadline) {
			return l, err
		}
		<-time.After(10 * time.Millisecond)
	}
}

func tryAcquire(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &UnusableError{dir, err}
	}
	path := filepath.Join(dir, LockFile)
	for {
		guard, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, &UnusableError{dir, err}
		}
		if err := flock(guard); err != nil {
			_ = guard.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				owner, _ := ReadOwner(dir)
				return nil, &HeldError{dir, owner}
			}
			return nil, fmt.Errorf("statedir: instance lock: %w", err)
		}
		if !sameFile(guard, path) { // the file was removed in between: this lock guards nothing
			_ = guard.Close()
			continue
		}
		l := &Lock{dir: dir, guard: guard}
		if err := l.Claim(); err != nil {
			_ = guard.Close()
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
				err = &UnusableError{dir, err}
			}
			return nil, err
		}
		return l, nil
	}
}

// Adopt makes a lock of the descriptor that the predecessor passed to this process. The lockfile names the predecessor
// until Claim.
func Adopt(dir string, guard *os.File) (*Lock, error) {
	if err := flock(guard); err != nil { // a no-op on a description that holds the lock
		return nil, fmt.Errorf("statedir: the inherited instance lock is not held: %w", err)
	}
	if !sameFile(guard, filepath.Join(dir, LockFile)) {
		return nil, fmt.Errorf("statedir: the inherited instance lock is not that of %s", dir)
	}
	return &Lock{dir: dir, guard: guard}, nil
}

// Claim writes this process into the lockfile.
func (l *Lock) Claim() error {
	path := filepath.Join(l.dir, PIDFile)
	pid, err := lockfile.New(path)
	if err != nil {
		return fmt.Errorf("statedir: instance lock: %w", err)
	}
	err = pid.TryLock()
	if errors.Is(err, lockfile.ErrBusy) || errors.Is(err, lockfile.ErrNotExist) {
		// This process holds the flock. So the file is stale and its process number was reused, or the file names the
		// predecessor.
		_ = os.Remove(path)
		err = pid.TryLock()
	}
	if err != nil {
		return fmt.Errorf("statedir: naming the owner of the instance lock: %w", err)
	}
	l.pid = pid
	return nil
}

// Describe writes the owner's file, for a second starter to read.
func (l *Lock) Describe(o Owner) error {
	if err := writeJSON(l.dir, OwnerFile, o); err != nil {
		return fmt.Errorf("statedir: describing the owner: %w", err)
	}
	return nil
}

// ReadOwner reads what Describe wrote last. The owner may have ended since: only the lock decides, see [Owned].
func ReadOwner(dir string) (Owner, error) {
	var o Owner
	if err := readJSON(dir, OwnerFile, &o); err != nil {
		return o, fmt.Errorf("statedir: reading the owner: %w", err)
	}
	return o, nil
}

// Release removes the lockfile and closes the descriptor of the lock. It never unlocks: a successor may share the open
// file description, and then holds the lock.
func (l *Lock) Release() error {
	var err error
	if l.pid != "" {
		err = l.pid.Unlock()
	}
	if errors.Is(err, lockfile.ErrRogueDeletion) || errors.Is(err, fs.ErrNotExist) {
		err = nil // the flock held; the file was for people
	}
	return errors.Join(err, l.guard.Close())
}

// Leave closes the descriptor of a lock that a successor holds. The lockfile is the successor's.
func (l *Lock) Leave() error { return l.guard.Close() }

func flock(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

func sameFile(f *os.File, path string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(held, named)
}

// SyscallConn gives a hand-over the descriptor that carries the lock.
func (l *Lock) SyscallConn() (syscall.RawConn, error) { return l.guard.SyscallConn() }
