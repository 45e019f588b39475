package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"gateway/internal/statedir"
)

const (
	nobody    = 65534
	immutable = 0x10 // FS_IMMUTABLE_FL
)

// unprivileged makes the gateways of the house run as a user to whom permissions apply, who owns the state folder and the
// configuration. Without root that is the user of the tests.
func (h *house) unprivileged() {
	h.t.Helper()
	require.NoError(h.t, os.MkdirAll(h.state(), 0o700))
	if os.Getuid() != 0 {
		return
	}
	h.place = func(cmd *exec.Cmd) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	for _, dir := range []string{filepath.Dir(h.dir), filepath.Dir(binary(h.t))} {
		require.NoError(h.t, os.Chmod(dir, 0o755))
	}
	for _, path := range []string{h.dir, h.config, h.state()} {
		require.NoError(h.t, os.Chown(path, nobody, nobody))
	}
	trial := h.command("version")
	trial.SysProcAttr = &syscall.SysProcAttr{}
	h.place(trial)
	if out, err := trial.CombinedOutput(); err != nil {
		h.t.Skipf("no program can be run as nobody here: %v %s", err, out)
	}
}

// A folder that cannot be used is refused at the start, with what to try, and with the code that keeps a supervisor
// from trying for ever. Nothing in it is changed.
func TestAStateFolderThatCannotBeUsedIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		used   bool // a gateway has been here before
		spoil  func(t *testing.T, h *house)
		reason string
		code   int
	}{
		{"a file is in its place", false, func(t *testing.T, h *house) {
			require.NoError(t, os.Remove(h.state()))
			require.NoError(t, os.WriteFile(h.state(), nil, 0o600))
		}, "not a directory", 78},
		{"it cannot be made", false, func(t *testing.T, h *house) {
			require.NoError(t, os.Remove(h.state()))
			require.NoError(t, os.Chmod(h.dir, 0o500))
		}, "permission denied", 78},
		{"it was removed, and cannot be made again", true, func(t *testing.T, h *house) {
			require.NoError(t, os.RemoveAll(h.state()))
			require.NoError(t, os.Chmod(h.dir, 0o500))
		}, "permission denied", 78},
		{"nobody may look into it", true, func(t *testing.T, h *house) {
			require.NoError(t, os.Chmod(h.state(), 0))
		}, "permission denied", 78},
		{"new, and nobody may write to it", false, func(t *testing.T, h *house) {
			require.NoError(t, os.Chmod(h.state(), 0o500))
		}, "permission denied", 78},
		{"used, and nobody may write to it", true, func(t *testing.T, h *house) {
			require.NoError(t, os.Chmod(h.state(), 0o500))
		}, "permission denied", 78},
		{"nobody may write to the store", true, func(t *testing.T, h *house) {
			require.NoError(t, os.Chmod(filepath.Join(h.state(), statedir.StoreFile), 0o400))
		}, "permission denied", 78},
		{"nobody may read the store", true, func(t *testing.T, h *house) {
			require.NoError(t, os.Chmod(filepath.Join(h.state(), statedir.StoreFile), 0))
		}, "permission denied", 78},
		{"a folder is in the store's place", false, func(t *testing.T, h *house) {
			require.NoError(t, os.Mkdir(filepath.Join(h.state(), statedir.StoreFile), 0o700))
		}, "is a directory", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, "")
			h.unprivileged()
			if c.used {
				h.start()
				_, _, err := ask(t.Context(), http.DefaultClient, h.waitState("Running").Address, "s", "echo", "kept", "kept", false)
				require.NoError(t, err)
				h.signal(syscall.SIGTERM)
				require.Equal(t, 0, h.wait())
			}
			before, _ := os.ReadFile(filepath.Join(h.state(), statedir.StoreFile)) // nil when there is none
			c.spoil(t, h)
			t.Cleanup(func() { // so that it can be removed
				_ = os.Chmod(h.dir, 0o700)
				_ = os.Chmod(h.state(), 0o700)
			})
			h.launch()
			code := h.wait()
			said := h.logged()
			require.Contains(t, said, c.reason)
			_, try, found := strings.Cut(said, "gateway: ")
			require.True(t, found, said)
			require.Equal(t, c.code, code, said)
			require.Contains(t, try, "Try:")
			require.Contains(t, try, "folder", "what to try is about the folder, and about nothing else")
			require.NotContains(t, try, "address")
			if before != nil && !strings.HasPrefix(c.name, "it was removed") {
				_ = os.Chmod(h.state(), 0o700)
				_ = os.Chmod(filepath.Join(h.state(), statedir.StoreFile), 0o600)
				after, err := os.ReadFile(filepath.Join(h.state(), statedir.StoreFile))
				require.NoError(t, err)
				require.True(t, bytes.Equal(before, after), "the store was changed")
			}
		})
	}
}

// mounted makes the command run in a mount namespace of its own, after what the script does there to the folder $DIR.
func mounted(cmd *exec.Cmd, dir, script string, user bool) {
	cmd.Args = append([]string{"sh", "-c", `mount --make-rprivate / && mount --bind "$DIR" "$DIR" && ` + script + ` && exec "$0" "$@"`}, cmd.Args...)
	cmd.Path, cmd.Err = exec.LookPath("sh")
	cmd.Env = append(cmd.Environ(), "DIR="+dir)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	if user {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

func TestAReadOnlyDiskIsRefusedAndTheNextStartFindsAll(t *testing.T) {
	const readOnly = `mount -o remount,bind,ro "$DIR"`
	h := newHouse(t, "")
	require.NoError(t, os.MkdirAll(h.state(), 0o700))
	trial := exec.CommandContext(t.Context(), "true")
	mounted(trial, h.state(), readOnly, os.Getuid() != 0)
	if out, err := trial.CombinedOutput(); err != nil {
		t.Skipf("no folder can be mounted read-only here: %v %s", err, out)
	}
	h.start()
	a, _, err := ask(t.Context(), http.DefaultClient, h.waitState("Running").Address, "s", "echo", "kept", "kept", false)
	require.NoError(t, err)
	h.signal(syscall.SIGKILL)
	h.wait()
	h.place = func(cmd *exec.Cmd) { mounted(cmd, h.state(), readOnly, os.Getuid() != 0) }
	h.launch()
	require.Equal(t, 78, h.wait(), h.logged())
	require.Contains(t, h.logged(), "read-only file system")
	require.Contains(t, h.logged(), "Try: a state folder that can be written to")
	h.place = nil
	h.start()
	require.Equal(t, "kept", h.turn(a.ID).Output)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

// fixed makes a file immutable, also for processes that have it open, or normal again.
func fixed(path string, yes bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	flags &^= immutable
	if yes {
		flags |= immutable
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// The kernel takes no bind mount or disk from under its writers; what a person sees as "has become read-only" is writes
// that fail on files that are open. Here they do so for a while.
func TestAStoreThatTakesNoWritesForAWhileRefusesAndForgetsNothing(t *testing.T) {
	h := newHouse(t, `agents: { slow: { type: command, command: [sh, -c, "sleep 0.3; cat"] } }`)
	h.start()
	s := h.waitState("Running")
	var record history
	try := func(session, agent, text string, background bool) error {
		a, status, err := ask(t.Context(), http.DefaultClient, s.Address, session, agent, text, text, background)
		if err == nil {
			record.acknowledged(a.ID, session, text)
		} else {
			require.GreaterOrEqual(t, status, 500, err)
		}
		return err
	}
	for i := range 5 {
		require.NoError(t, try("desk", "echo", fmt.Sprint(i), false))
	}
	require.NoError(t, try("other", "slow", "in the middle", true)) // it ends while nothing can be written
	files := []string{filepath.Join(h.state(), statedir.StoreFile), filepath.Join(h.state(), statedir.StoreFile+"-wal")}
	t.Cleanup(func() {
		for _, path := range files {
			_ = fixed(path, false)
		}
	})
	for _, path := range files {
		if err := fixed(path, true); err != nil {
			t.Skipf("no file can be made immutable here: %v", err)
		}
	}
	for i := range 3 {
		err := try("desk", "echo", fmt.Sprint("refused ", i), true)
		if i == 0 && err == nil {
			t.Skip("this file system lets those write who have it open")
		}
		require.ErrorContains(t, err, "store_unusable")
		require.ErrorContains(t, err, "Try:")
	}
	h.eventually("the end of the turn that runs could not be written", func() bool { return strings.Contains(h.logged(), "trying again") })
	require.Equal(t, http.StatusOK, h.probe(s.Address, "/healthz"))
	for _, p := range record.promises {
		require.NotEmpty(t, h.turn(p.id).ID, "reads continue")
	}
	for _, path := range files {
		require.NoError(t, fixed(path, false))
	}
	h.eventually("it accepts again", func() bool { return try("desk", "echo", "again", true) == nil })
	h.judge(&record)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	h.start()
	h.judge(&record)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

// The kernel makes a disk with errors read-only permanently. The gateway refuses turns, continues to read and stops on
// request; everything that was acknowledged is on the disk.
func TestADiskThatBecomesReadOnlyLosesNothing(t *testing.T) {
	h := newHouse(t, "")
	image := filepath.Join(h.dir, "disk")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 32<<20))
	require.NoError(t, os.MkdirAll(h.state(), 0o700))
	run := func(name string, args ...string) error {
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w %s", name, err, out)
		}
		return nil
	}
	if err := errors.Join(run("mkfs.ext4", "-q", image), run("mount", "-o", "loop", image, h.state())); err != nil {
		t.Skipf("no disk can be made here: %v", err)
	}
	t.Cleanup(func() {
		for _, group := range h.groups {
			_ = syscall.Kill(-group, syscall.SIGKILL)
		}
		h.http.CloseIdleConnections()
		_ = syscall.Unmount(h.state(), syscall.MNT_DETACH)
	})
	h.start()
	s := h.waitState("Running")
	var record history
	try := func(i int) error {
		a, status, err := ask(t.Context(), http.DefaultClient, s.Address, "desk", "echo", fmt.Sprint(i), fmt.Sprint(i), true)
		if err == nil {
			record.acknowledged(a.ID, "desk", fmt.Sprint(i))
		} else {
			require.Equal(t, http.StatusServiceUnavailable, status)
		}
		return err
	}
	for i := range 20 {
		require.NoError(t, try(i))
	}
	require.NoError(t, run("mount", "-o", "remount,abort", h.state()))
	require.ErrorContains(t, try(100), "store_unusable")
	require.Equal(t, http.StatusOK, h.probe(s.Address, "/healthz"))
	for _, p := range record.promises {
		require.NotEmpty(t, h.turn(p.id).ID, "reads continue")
	}
	h.signal(syscall.SIGTERM)
	h.wait()
	require.NoError(t, run("umount", h.state()))
	require.NoError(t, run("mount", "-o", "loop", image, h.state()))
	h.start()
	h.judge(&record)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

// What is written to files without a name goes with the process: nothing is acknowledged on them. A folder that is
// moved back is as good as before.
func TestAFolderThatIsRemovedMeanwhileTakesNoMoreTurns(t *testing.T) {
	h := newHouse(t, "")
	h.start()
	address := h.waitState("Running").Address
	var record history
	try := func(i int) error {
		a, status, err := ask(t.Context(), http.DefaultClient, address, "desk", "echo", fmt.Sprint(i), fmt.Sprint(i), true)
		if err == nil {
			record.acknowledged(a.ID, "desk", fmt.Sprint(i))
		} else {
			require.Equal(t, http.StatusServiceUnavailable, status)
			require.ErrorContains(t, err, "store_unusable")
		}
		return err
	}
	for i := range 10 {
		require.NoError(t, try(i))
	}
	h.judge(&record)
	elsewhere := filepath.Join(h.dir, "elsewhere")
	require.NoError(t, os.Rename(h.state(), elsewhere))
	require.Error(t, try(10))
	require.Contains(t, h.logged(), "was removed or replaced")
	require.NoError(t, os.Mkdir(h.state(), 0o700))
	require.Error(t, try(11), "another folder in its place is not it")
	require.NoError(t, os.Remove(h.state()))
	require.NoError(t, os.Rename(elsewhere, h.state()))
	require.NoError(t, try(12))
	h.judge(&record)

	require.NoError(t, os.Remove(filepath.Join(h.state(), statedir.StoreFile+"-wal")))
	require.Error(t, try(13), "and so it is with the log alone")
	require.NoError(t, os.RemoveAll(h.state()))
	require.Error(t, try(14))
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}
