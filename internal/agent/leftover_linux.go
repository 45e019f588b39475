package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// EndLeftovers kills what programs of a gateway that died have left running, and returns how many processes that
// were. A program itself dies with its gateway, but not the programs that it started: they would act beside the
// next attempt of their turn. They are known by the environment that their turn gave them. What has begun a session
// of its own (setsid) was meant to stay, and does.
func EndLeftovers(stateDir string) (killed int, err error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return 0, fmt.Errorf("agent: finding programs that the last gateway left running: %w", err)
	}
	left := make(map[int]bool)
	for _, p := range all {
		left[p.PID] = ofATurn(p, stateDir)
	}
	for pid := os.Getpid(); pid > 1 && left[pid]; { // whoever starts this gateway goes on
		left[pid] = false
		p, err := procfs.NewProc(pid)
		if err != nil {
			break
		}
		stat, err := p.Stat()
		if err != nil {
			break
		}
		pid = stat.PPID
	}
	var errs []error
	for _, p := range all {
		if !left[p.PID] {
			continue
		}
		stat, err := p.Stat()
		if err != nil || left[stat.Session] {
			continue // it has ended, or its session began in the turn
		}
		switch err := unix.Kill(p.PID, unix.SIGKILL); {
		case err == nil:
			killed++
		case !errors.Is(err, unix.ESRCH):
			errs = append(errs, fmt.Errorf("agent: ending process %d, which the last gateway left running: %w", p.PID, err))
		}
	}
	return killed, errors.Join(errs...)
}

// ofATurn reports whether the process was started, however indirectly, for a turn of the gateway with this state
// folder.
func ofATurn(p procfs.Proc, stateDir string) bool {
	env, err := p.Environ()
	if err != nil {
		return false // another user's, or gone
	}
	turn, ours := false, false
	for _, kv := range env {
		turn = turn || strings.HasPrefix(kv, turnVariable)
		ours = ours || kv == stateDirVariable+stateDir
	}
	return turn && ours
}
