package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// subject is a server that is restarted under load.
type subject interface {
	// name is what the report calls it.
	name() string
	// start returns once it answers at the address.
	start(ctx context.Context) (address string, err error)
	// restart returns once the new generation serves, or says why it does not.
	restart(ctx context.Context) error
	// stop ends it, and returns once all its processes have ended.
	stop() error
	// path is what a plain request asks for; empty for a subject that takes turns.
	path() string
	// pids are the processes that serve now.
	pids() []int
}

// startLimit bounds how long a subject takes to serve, at the start and after a restart.
const startLimit = 30 * time.Second

// program is a process that a subject runs.
type program struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// launch starts a program whose output goes to a file.
func launch(dir string, env []string, argv ...string) (*program, error) {
	log, err := os.OpenFile(filepath.Join(dir, filepath.Base(argv[0])+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()        // the program has its own
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it is stopped by its own means
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	p := &program{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
	return p, nil
}

// end asks the program to end, and insists after a while.
func (p *program) end() error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(startLimit):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("%s did not end on SIGTERM", p.cmd.Path)
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // whatever it left
	return nil
}

// eventually waits until f says so.
func eventually(ctx context.Context, what string, f func() bool) error {
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("%s: not within %s", what, startLimit)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// running lists the processes whose executable begins with the given path.
func running(executable string) (pids []int) {
	all, _ := procfs.AllProcs()
	for _, p := range all {
		if path, err := p.Executable(); err == nil && strings.HasPrefix(path, executable) {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// sameProgram reports whether the processes share their program.
func sameProgram(pids []int) bool {
	var first os.FileInfo
	for _, pid := range pids {
		program, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		switch {
		case err != nil: // it has ended
		case first == nil:
			first = program
		case !os.SameFile(first, program):
			return false
		}
	}
	return true
}

// resident is the memory of the processes together, in bytes. What they share, such as the program itself, counts
// once.
func resident(pids []int) (sum int) {
	for _, pid := range pids {
		p, err := procfs.NewProc(pid)
		if err != nil {
			continue
		}
		if all, err := p.ProcSMapsRollup(); err == nil {
			sum += int(all.Pss)
		}
	}
	return sum
}
