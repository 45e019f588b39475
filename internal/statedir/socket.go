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

// maxSocketPath is how many bytes fit into sockaddr_un on Linux, macOS and the BSDs, with the final zero.
const maxSocketPath = 103

// SocketPath names the control socket of a state folder.
func SocketPath(dir string) string { return filepath.Join(dir, SocketFile) }

// ListenSocket opens the control socket with mode 0600: local commands need no token there. The caller holds the
// instance lock, so an existing file is left over from a crash and is replaced.
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
	unixLn.SetUnlinkOnClose(false) // a successor may serve it; RemoveSocket removes it
	if err := os.Chmod(SocketPath(dir), 0o600); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("statedir: control socket: %w", err)
	}
	return unixLn, nil
}

// RemoveSocket removes the control socket's file, so that a client finds nothing rather than nobody.
func RemoveSocket(dir string) { _ = os.Remove(SocketPath(dir)) }

// DialSocket connects to the gateway of a state folder. When none runs, the error wraps [fs.ErrNotExist] or
// ECONNREFUSED.
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
		return "", nil, fmt.Errorf("statedir: the path of the state folder %s is too long for a socket: at most %d bytes", dir, maxSocketPath-len(SocketFile)-1)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("statedir: state folder %s: %w", dir, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, SocketFile), func() { _ = unix.Close(fd) }, nil
}
