// Package handoff is how one process of the gateway passes everything to the next: the mode of a restart, the link
// between the two processes, the hand-over document, and the descriptors of the instance lock, the listeners and the
// connections.
//
// The invariant: at each moment exactly one of the two processes may serve, and both can find out which, even when the
// other one dies or hangs.
package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// handoverEnv names the descriptor of the hand-over document in the new image.
	handoverEnv = "GATEWAY_HANDOVER"
	// handoverLimit bounds the document, in bytes. It is above what clients can have said and not been answered: the
	// bodies and heads of all connections, in base64. A document that is too large is a restart that fails.
	handoverLimit = 1 << 30
)

// Handover is what a gateway leaves to the one that replaces it: the next image of this process, or a
// successor.
type Handover struct {
	// BootID is that of the gateway that hands over.
	BootID string `json:"boot_id"`
	// StateDir is whose lock is handed on.
	StateDir string `json:"state_dir"`
	// Lock, Listener and Socket are descriptors, -1 for none; the listener's address is as configured.
	Lock          int    `json:"lock"`
	Listener      int    `json:"listener"`
	ListenAddress string `json:"listen_address"`
	// Activated reports whether the listener belongs to the supervisor.
	Activated bool `json:"activated,omitempty"`
	Socket    int  `json:"socket"`
	// Conns are client connections that wait for an answer.
	Conns []HeldConn `json:"conns"`
	// History is opaque to this package.
	History json.RawMessage `json:"history"`
}

// HeldConn is a connection that is carried over: what was read from it and not answered, and its
// descriptor.
type HeldConn struct {
	FD int `json:"fd"`
	// Local reports whether it came through the control socket.
	Local bool `json:"local"`
	// TLS reports whether the client expects TLS; nothing was answered yet, so whoever serves it begins.
	TLS bool `json:"tls,omitempty"`
	// Parted reports whether nothing but the client's own close is waited for.
	Parted bool   `json:"parted,omitempty"`
	Read   []byte `json:"read"`
}

// Executable is the path that this process was started with, made absolute without following links, so
// that a restart runs what the link points to by then. The kernel's own answer names the old file, or
// "(deleted)" after an upgrade.
func Executable(argv0 string) (string, error) {
	if strings.ContainsRune(argv0, os.PathSeparator) {
		if !strings.HasPrefix(argv0, string(os.PathSeparator)) {
			wd, err := os.Getwd()
			if err != nil {
				return "", fmt.Errorf("handoff: path of the executable: %w", err)
			}
			argv0 = wd + string(os.PathSeparator) + argv0
		}
		return argv0, nil
	}
	path, err := lookPath(argv0)
	if err != nil {
		if path, err = os.Executable(); err != nil {
			return "", fmt.Errorf("handoff: path of the executable: %w", err)
		}
	}
	return path, nil
}

// Exec replaces the image of this process: same process id, the descriptors of the document kept. It
// returns only when that failed; the caller's own descriptors are as they were. The document's descriptors
// must come from [Keep].
func Exec(path string, argv []string, doc Handover) error {
	f, err := doc.file()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	fd, err := Keep(f)
	if err != nil {
		return err
	}
	defer Drop(fd)
	env := append(without(os.Environ(), handoverEnv), handoverEnv+"="+strconv.Itoa(fd))
	var files unix.Rlimit // syscall.Exec lowers it to what the process was started with
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &files) }()
	}
	return fmt.Errorf("handoff: replacing the image by %s: %w", path, syscall.Exec(path, argv, env))
}

// Inherit returns what the image before this one left, or nil when there was none. The descriptors are
// close-on-exec from here on and the environment no longer names them.
func Inherit() (*Handover, error) {
	value, ok := os.LookupEnv(handoverEnv)
	if !ok {
		return nil, nil
	}
	_ = os.Unsetenv(handoverEnv)
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("handoff: hand-over: %s=%q is not a descriptor", handoverEnv, value)
	}
	unix.CloseOnExec(fd)
	doc, err := readHandover(os.NewFile(uintptr(fd), "hand-over"))
	if err != nil {
		return nil, err
	}
	for _, fd := range doc.descriptors() {
		unix.CloseOnExec(fd)
	}
	return doc, nil
}

// descriptors lists what is handed over, in the order in which it travels.
func (h *Handover) descriptors() []int {
	var fds []int
	for _, fd := range []int{h.Lock, h.Listener, h.Socket} {
		if fd >= 0 {
			fds = append(fds, fd)
		}
	}
	for _, c := range h.Conns {
		fds = append(fds, c.FD)
	}
	return fds
}

// Keep duplicates the descriptor of a file, listener or connection so that it survives Exec. Drop closes
// the duplicate when Exec failed. Nothing may be started between the two: a child would inherit it.
func Keep(c syscall.Conn) (int, error) { return duplicate(c, unix.F_DUPFD) }

// Duplicate is Keep for a hand-over to another process: the duplicate does not survive Exec.
func Duplicate(c syscall.Conn) (int, error) { return duplicate(c, unix.F_DUPFD_CLOEXEC) }

func duplicate(c syscall.Conn, how int) (int, error) {
	dup := -1
	var dupErr error
	err := control(c, func(fd int) { dup, dupErr = unix.FcntlInt(uintptr(fd), how, 3) })
	if err := errors.Join(err, dupErr); err != nil {
		return -1, fmt.Errorf("handoff: keeping a descriptor: %w", err)
	}
	return dup, nil
}

// Drop closes descriptors that Keep returned.
func Drop(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// control runs f on the descriptor without changing its mode, as (*os.File).Fd would.
func control(c syscall.Conn, f func(fd int)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

func without(env []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(names, name)
	})
}

// LockFile is the inherited guard of the instance lock, for the state folder to adopt.
func (h *Handover) LockFile() *os.File { return os.NewFile(uintptr(h.Lock), "instance lock") }
