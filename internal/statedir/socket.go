package statedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// socketName is the control socket in the state folder: local commands need no token there.
const socketName = "gateway.sock"

// maxSocketPath is what fits into sockaddr_un on every system that we know, with the final zero.
const maxSocketPath = 103

// SocketPath names the control socket of a state folder.
func SocketPath(dir string) string { return filepath.Join(dir, socketName) }

// ListenSocket opens the control socket with mode 0600. The caller holds the instance lock, so a file that
// is there already is left over and is replaced.
func ListenSocket(ctx context.Context, dir string) (*net.UnixListener, error) {
	if err := os.Remove(SocketPath(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("statedir: control socket: %w", err)
	}
	path, done, err := shortSocketPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	ln, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("statedir: control socket: %w", err)
	}
	unixLn := ln.(*net.UnixListener)
	unixLn.SetUnlinkOnClose(false) // a successor may serve it; RemoveSocket takes it away
	if err := os.Chmod(SocketPath(dir), 0o600); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("statedir: control socket: %w", err)
	}
	return unixLn, nil
}

// RemoveSocket removes the control socket's file, so that a client finds nothing rather than nobody.
func RemoveSocket(dir string) { _ = os.Remove(SocketPath(dir)) }

// DialSocket connects to the gateway of a state folder. The error wraps [fs.ErrNotExist] or ECONNREFUSED
// when none runs.
func DialSocket(ctx context.Context, dir string) (net.Conn, error) {
	path, done, err := shortSocketPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("statedir: control socket of %s: %w", dir, err)
	}
	return conn, nil
}

// shortSocketPath returns a path to the socket that fits into sockaddr_un: a long one goes through the
// descriptor of the opened folder. done closes it.
func shortSocketPath(dir string) (path string, done func(), err error) {
	if path := SocketPath(dir); len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	if runtime.GOOS != "linux" {
		return "", nil, fmt.Errorf("statedir: the path of the state folder %s is too long for a socket: at most %d bytes", dir, maxSocketPath-len(socketName)-1)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("statedir: state folder %s: %w", dir, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, socketName), func() { _ = unix.Close(fd) }, nil
}
