// Package handoff is how one process of the gateway passes everything to the next: the mode of a restart, the link
// between the two processes, the hand-over document, and the descriptors of the instance lock, the listeners and the
// connections.
//
// The invariant: at each moment exactly one of the two processes may serve, and both can find out which, even when the
// other one dies or hangs.
package handoff

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"gateway/server/carry"
)

// handoverEnv names the descriptor of the hand-over document in the new image.
const handoverEnv = "GATEWAY_HANDOVER"

// About describes the gateway that hands over.
type About struct {
	// BootID is that of the gateway that hands over.
	BootID string `json:"boot_id"`
	// StateDir is the state folder whose lock is passed.
	StateDir string `json:"state_dir"`
	// ListenAddress is the address of the listener, as configured.
	ListenAddress string `json:"listen_address"`
	// Activated reports whether the listener belongs to the supervisor.
	Activated bool `json:"activated,omitempty"`
	// History is opaque to this package.
	History json.RawMessage `json:"history"`
	// NextHop is the number of the first hop of who takes over; 0 where it is not known.
	NextHop uint64 `json:"next_hop,omitempty"`
}

// Handover is everything that a gateway passes to the one that replaces it: the next image of this process, or a
// successor. It is made of what the gateway has open, and stays the gateway's: what is passed are duplicates.
type Handover struct {
	About
	// Lock, Listener and Socket are nil for none.
	Lock, Listener, Socket syscall.Conn
	// Conns are client connections that wait for an answer.
	Conns []carry.Connection
}

// Inherited is everything that this process got from its predecessor. The caller owns what the methods return, and
// calls each once.
type Inherited struct {
	About
	doc *document
}

// Lock is the open file that carries the instance lock.
func (i *Inherited) Lock() *os.File { return os.NewFile(uintptr(i.doc.Lock), "instance lock") }

// Listener is the TCP listener.
func (i *Inherited) Listener() (*net.TCPListener, error) {
	return inheritedListener[*net.TCPListener](i.doc.Listener, "listener")
}

// Socket is the listener of the control socket.
func (i *Inherited) Socket() (*net.UnixListener, error) {
	return inheritedListener[*net.UnixListener](i.doc.Socket, "control socket")
}

// Conns are the connections that wait for an answer. The error joins those of connections that cannot be used; the
// others are returned all the same.
func (i *Inherited) Conns() ([]carry.Connection, error) {
	conns, err := i.doc.open()
	i.doc.Conns = nil
	return conns, err
}

func inheritedListener[L net.Listener](fd int, name string) (l L, err error) {
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	ln, err := net.FileListener(f)
	if err != nil {
		return l, fmt.Errorf("the inherited %s cannot be used: %w", name, err)
	}
	l, ok := ln.(L)
	if !ok {
		return l, fmt.Errorf("the inherited %s is a %T", name, ln)
	}
	return l, nil
}

// Exec replaces the image of this process: same process id, and the duplicates of everything passed stay open. It
// returns only when that failed; then the caller has what it had. No child can be started meanwhile, since it would
// inherit the duplicates.
func Exec(path string, argv []string, h Handover) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	p, err := h.pack(unix.F_DUPFD)
	if err != nil {
		return err
	}
	defer p.drop()
	fd, err := duplicate(p.file, unix.F_DUPFD)
	if err != nil {
		return err
	}
	defer drop(fd)
	env := append(without(os.Environ(), handoverEnv), handoverEnv+"="+strconv.Itoa(fd))
	var files unix.Rlimit // syscall.Exec lowers it to what the process was started with
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &files) }()
	}
	return fmt.Errorf("handoff: replacing the image by %s: %w", path, syscall.Exec(path, argv, env))
}

// Inherit returns what the image before this one passed, or nil when there was none. From here on the descriptors are
// close-on-exec, and the environment no longer names the document.
func Inherit() (*Inherited, error) {
	value, ok := os.LookupEnv(handoverEnv)
	if !ok {
		return nil, nil
	}
	_ = os.Unsetenv(handoverEnv)
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("handoff: %s=%q is not a descriptor", handoverEnv, value)
	}
	unix.CloseOnExec(fd)
	doc, err := readDocument(os.NewFile(uintptr(fd), "hand-over"))
	if err != nil {
		return nil, err
	}
	for _, fd := range doc.descriptors() {
		unix.CloseOnExec(fd)
	}
	return &Inherited{About: doc.About, doc: doc}, nil
}

func without(env []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(names, name)
	})
}
