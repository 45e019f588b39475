package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The usual recipes for restarting a Go server, as small as they are found. Each is this very program with the
// recipe's name in the environment.

const (
	recipeVariable  = "CERTIFY_RECIPE"
	addressVariable = "CERTIFY_ADDRESS"
)

// recipes by name, with what the report calls them.
var recipes = map[string]string{
	"stop-start": "Go: stop, then start",
	"reuseport":  "Go: SO_REUSEPORT, the new one beside the old",
	"handover":   "Go: listener inherited, then Shutdown",
}

// recipe is the subject.
type recipe struct {
	kind      string
	address   string
	inherited *os.File // the listener, for the recipe that hands it over
	mu        sync.Mutex
	p         *program // of the generation that serves
}

func (r *recipe) name() string { return recipes[r.kind] }
func (r *recipe) path() string { return "/" }
func (r *recipe) pids() []int  { return []int{r.now().cmd.Process.Pid} }

func (r *recipe) now() *program {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.p
}

func (r *recipe) start(ctx context.Context) (string, error) {
	var err error
	if r.address, err = freeAddress(); err != nil {
		return "", err
	}
	if r.kind == "handover" {
		var c net.ListenConfig
		ln, err := c.Listen(ctx, "tcp", r.address)
		if err != nil {
			return "", err
		}
		if r.inherited, err = ln.(*net.TCPListener).File(); err != nil {
			return "", err
		}
		_ = ln.Close()
	}
	if err := r.launch(); err != nil {
		return "", err
	}
	return r.address, eventually(ctx, "it listens", func() bool { return listens(r.address) })
}

// launch starts the next generation.
func (r *recipe) launch() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self) //nolint:noctx // it is stopped by its own means
	cmd.Env = append(os.Environ(), recipeVariable+"="+r.kind, addressVariable+"="+r.address)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.inherited != nil {
		cmd.ExtraFiles = []*os.File{r.inherited}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &program{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.p = p
	return nil
}

func (r *recipe) restart(ctx context.Context) error {
	old := r.now()
	if r.kind == "stop-start" {
		if err := old.end(); err != nil {
			return err
		}
		if err := r.launch(); err != nil {
			return err
		}
		return eventually(ctx, "it listens", func() bool { return listens(r.address) })
	}
	// Both others have the new one listen before the old one shuts down.
	if err := r.launch(); err != nil {
		return err
	}
	ready := readyFile(r.now().cmd.Process.Pid)
	if err := eventually(ctx, "the new one is ready", func() bool {
		_, err := os.Stat(ready)
		return err == nil
	}); err != nil {
		return err
	}
	return old.end()
}

func (r *recipe) stop() error {
	if r.inherited != nil {
		defer func() { _ = r.inherited.Close() }()
	}
	return r.now().end()
}

// serveRecipe is the server.
func serveRecipe(kind, address string) error {
	ln, err := listenAs(kind, address)
	if err != nil {
		return err
	}
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})}
	asked, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	ready := readyFile(os.Getpid())
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(ready) }()
	select {
	case err := <-served:
		return err
	case <-asked.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return s.Shutdown(ctx)
}

// readyFile says that the recipe with this process id serves.
func readyFile(pid int) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("certify-ready-%d", pid))
}

func listenAs(kind, address string) (net.Listener, error) {
	config := net.ListenConfig{}
	switch kind {
	case "handover":
		return net.FileListener(os.NewFile(3, "listener"))
	case "reuseport":
		config.Control = func(_, _ string, c syscall.RawConn) (err error) {
			control := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			return errors.Join(err, control)
		}
	}
	return config.Listen(context.Background(), "tcp", address)
}
