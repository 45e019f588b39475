//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"gateway/internal/child"
)

// owner is who the servers run as: PostgreSQL refuses to be root. Nil when this process is not root either.
func owner() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
			gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(errUID, errGID)
		}
	}
	return nil, errors.New("no user for PostgreSQL to run as, which refuses to be root; try this as another user than root")
}

// privateFolder makes a folder for one measurement, which belongs to the servers.
func privateFolder() (string, error) {
	folder, err := os.MkdirTemp("", "peers-")
	if err != nil {
		return "", fmt.Errorf("no temporary folder; try another TMPDIR: %w", err)
	}
	as, err := owner()
	if err == nil && as != nil {
		err = os.Chown(folder, int(as.Uid), int(as.Gid))
	}
	// What sockets are called may not be longer than 107 bytes.
	if err == nil && len(folder) > 80 {
		err = fmt.Errorf("%s is too long for the sockets in it; try a shorter TMPDIR", folder)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(folder))
	}
	return folder, nil
}

// program is a command that runs as the owner of the folder, in it. It does not hear of Ctrl-C, which would end it
// under the clients, and does not outlive this process.
func program(ctx context.Context, folder, name string, args ...string) (*exec.Cmd, error) {
	as, err := owner()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return cmd, nil
}

// finish runs a program to its end, by way of the room that starts all programs of the house.
func finish(cmd *exec.Cmd) error {
	if err := child.Start(cmd); err != nil {
		return err
	}
	return child.Wait(cmd)
}

// serve starts a server and waits until ready says so. stop ends it.
func serve(ctx context.Context, ready func(context.Context) error, folder, name string, args ...string) (stop func() error, err error) {
	// The server ends when stop says so, after its clients: not when ctx ends.
	life, end := context.WithCancel(context.Background())
	cmd, err := program(life, folder, name, args...)
	if err != nil {
		end()
		return nil, err
	}
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		end()
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	// To PostgreSQL this means to end its connections and stop, to Redis to stop.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	if err := child.Start(cmd); err != nil {
		end()
		return nil, fmt.Errorf("%w; try make bench-peers, which installs it", err)
	}
	gone := make(chan struct{})
	go func() {
		_ = child.Wait(cmd)
		close(gone)
	}()
	stop = func() error {
		end()
		<-gone
		if !cmd.ProcessState.Success() {
			return fmt.Errorf("%s did not end as it should: %s; try again", name, cmd.ProcessState)
		}
		return nil
	}
	if err := awaitReady(ctx, ready, gone); err != nil {
		err = errors.Join(err, stop())
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s: %w; it said:\n%s", name, err, said)
	}
	return stop, nil
}

func awaitReady(ctx context.Context, ready func(context.Context) error, gone <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-gone:
			return errors.New("ended at once")
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// postgresProgram finds a program of PostgreSQL, which Debian keeps out of the PATH.
func postgresProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return "", fmt.Errorf("no %s; try make bench-peers, which installs PostgreSQL", name)
	}
	return found[len(found)-1], nil
}

// startPostgres makes a database of its own, and returns how to connect to it.
func startPostgres(ctx context.Context, folder string) (url string, stop func() error, err error) {
	initdb, err := postgresProgram("initdb")
	if err != nil {
		return "", nil, err
	}
	postgres, err := postgresProgram("postgres")
	if err != nil {
		return "", nil, err
	}
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd, err := program(within, folder, initdb, "-D", filepath.Join(folder, "data"), "-U", "peers", "-A", "trust", "-E", "UTF8", "--locale=C")
	if err != nil {
		return "", nil, err
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := finish(cmd); err != nil {
		return "", nil, fmt.Errorf("initdb: %w; it said:\n%s", err, said.Bytes())
	}
	url = "host=" + folder + " user=peers dbname=postgres sslmode=disable"
	stop, err = serve(ctx, func(ctx context.Context) error { return postgresKeeps(ctx, url) }, folder, postgres,
		"-D", filepath.Join(folder, "data"), "-k", folder, "-c", "listen_addresses=",
		"-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "full_page_writes=on",
		// Room, so that it does not measure its small defaults.
		"-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB")
	return url, stop, err
}

// postgresKeeps asks the server itself, since what it was told is not what it does.
func postgresKeeps(ctx context.Context, url string) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	var fsync, commit string
	err = c.QueryRow(ctx, "select current_setting('fsync'), current_setting('synchronous_commit')").Scan(&fsync, &commit)
	if err == nil && (fsync != "on" || commit != "on") {
		err = fmt.Errorf("fsync is %s, synchronous_commit is %s: want on", fsync, commit)
	}
	return err
}

// startRedis starts a Redis of its own, and returns its socket.
func startRedis(ctx context.Context, folder, appendfsync string) (socket string, stop func() error, err error) {
	socket = filepath.Join(folder, "redis.sock")
	stop, err = serve(ctx, func(ctx context.Context) error { return redisKeeps(ctx, socket, appendfsync) }, folder, "redis-server",
		"--port", "0", "--unixsocket", socket, "--dir", folder, "--maxclients", "4000",
		"--appendonly", "yes", "--appendfsync", appendfsync,
		// Neither snapshots nor a rewrite of the log in the middle of the measurement.
		"--save", "", "--auto-aof-rewrite-percentage", "0")
	return socket, stop, err
}

// redisKeeps asks the server itself, since what it was told is not what it does.
func redisKeeps(ctx context.Context, socket, appendfsync string) error {
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	defer func() { _ = c.Close() }()
	is, err := c.ConfigGet(ctx, "append*").Result()
	if err == nil && (is["appendonly"] != "yes" || is["appendfsync"] != appendfsync) {
		err = fmt.Errorf("appendonly is %s, appendfsync is %s: want yes, %s", is["appendonly"], is["appendfsync"], appendfsync)
	}
	return err
}
