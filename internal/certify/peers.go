package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// daemon is a server of somebody else that is told to reload, or to replace itself, by a signal.
type daemon struct {
	title  string
	dir    string
	from   string // the program, of which a copy runs: only its processes are looked at, and ended
	args   []string
	config func(address string) string // written to the file "config"
	reload func(d *daemon) error

	address string
	p       *program
	known   []int // the processes before a reload
}

func (d *daemon) name() string { return d.title }
func (d *daemon) path() string { return "/" }

func (d *daemon) copied() string { return filepath.Join(d.dir, filepath.Base(d.from)) }
func (d *daemon) pids() []int    { return running(d.copied()) }

func (d *daemon) start(ctx context.Context) (address string, err error) {
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return "", err
	}
	if d.address, err = freeAddress(); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "config"), []byte(d.config(d.address)), 0o600); err != nil {
		return "", err
	}
	program, err := os.ReadFile(d.from)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(d.copied(), program, 0o700); err != nil {
		return "", err
	}
	if d.p, err = launch(d.dir, nil, append([]string{d.copied()}, d.args...)...); err != nil {
		return "", err
	}
	return d.address, eventually(ctx, d.title+" listens", func() bool { return listens(d.address) })
}

// restart returns once a process serves that was not there before.
func (d *daemon) restart(ctx context.Context) error {
	d.known = d.pids()
	if err := d.reload(d); err != nil {
		return err
	}
	return eventually(ctx, d.title+" has reloaded", func() bool {
		for _, pid := range d.pids() {
			if !slices.Contains(d.known, pid) {
				return listens(d.address)
			}
		}
		return false
	})
}

func (d *daemon) stop() error {
	for _, pid := range d.pids() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	err := d.p.end()
	for _, pid := range d.pids() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return err
}

// pidFrom reads a file that holds a process id.
func (d *daemon) pidFrom(name string) (int, error) {
	text, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func freeAddress() (string, error) {
	var c net.ListenConfig
	ln, err := c.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

func listens(address string) bool {
	d := net.Dialer{Timeout: patience}
	conn, err := d.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// nginx reloads its configuration on SIGHUP: new workers beside the old ones.
func nginx(dir string) *daemon {
	return &daemon{
		title: "nginx, reload", dir: dir, from: "/usr/sbin/nginx", args: []string{"-p", dir, "-c", "config", "-e", "error.log"},
		config: func(address string) string {
			return fmt.Sprintf(`daemon off; worker_processes 2; pid nginx.pid;
events { worker_connections 1024; }
http { access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server { listen %s; location / { return 200 "ok\n"; } } }
`, address)
		},
		reload: func(d *daemon) error { return d.p.cmd.Process.Signal(syscall.SIGHUP) },
	}
}

// nginxUpgrade replaces nginx's binary: SIGUSR2 starts a second master on the same socket, SIGQUIT ends the first.
func nginxUpgrade(dir string) *daemon {
	d := nginx(dir)
	d.title = "nginx, binary upgrade"
	foreground := d.config
	d.config = func(address string) string { // in the foreground it ignores SIGUSR2
		return strings.TrimPrefix(foreground(address), "daemon off; ")
	}
	d.reload = func(d *daemon) error {
		old, err := d.pidFrom("nginx.pid")
		if err != nil {
			return err
		}
		if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
			return err
		}
		if err := eventually(context.Background(), "the new nginx", func() bool {
			now, err := d.pidFrom("nginx.pid")
			return err == nil && now != old
		}); err != nil {
			return err
		}
		return errors.Join(syscall.Kill(old, syscall.SIGQUIT), eventually(context.Background(), "the old nginx ends", func() bool {
			return !slices.Contains(d.pids(), old)
		}))
	}
	return d
}

// haproxy in master-worker mode replaces its worker on SIGUSR2.
func haproxy(dir string) *daemon {
	return &daemon{
		title: "HAProxy, master-worker reload", dir: dir, from: "/usr/sbin/haproxy", args: []string{"-W", "-db", "-f", "config"},
		config: func(address string) string {
			return fmt.Sprintf(`global
  master-worker
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend here
  bind %s
  http-request return status 200 content-type text/plain string ok
`, address)
		},
		reload: func(d *daemon) error { return d.p.cmd.Process.Signal(syscall.SIGUSR2) },
	}
}
