package child

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

const (
	// settleTime is how long a look waits after a child has ended: many that end together cost one look, and
	// whoever waits for one of ours comes first.
	settleTime = 50 * time.Millisecond
	// lookEvery is how often it looks without having been told: the kernel merges signals.
	lookEvery = 5 * time.Second
)

// Reaper takes the exit status of orphans. A program that outlives the one that started it becomes the
// child of process 1, and stays in the table of processes after its end until process 1 has waited for it.
// The container's limit of processes counts it.
type Reaper struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// NewReaper starts to reap when this process is where orphans go: process 1 of its namespace, or a
// subreaper. Elsewhere it does nothing.
func NewReaper(log zerolog.Logger) *Reaper {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Reaper{cancel: cancel}
	if !adopts() {
		return r
	}
	// The first use of a process handle tries with a child of its own whether the kernel has them. That
	// child is in no table, so it is over with before the first look.
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Release()
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	r.done.Go(func() {
		defer signal.Stop(died)
		reapUntil(ctx, died, log)
	})
	return r
}

// Close stops it and waits for its goroutine.
func (r *Reaper) Close() {
	r.cancel()
	r.done.Wait()
}

// adopts reports whether orphans become children of this process.
func adopts() bool {
	if os.Getpid() == 1 {
		return true
	}
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return err == nil && subreaper != 0
}

func reapUntil(ctx context.Context, died <-chan os.Signal, log zerolog.Logger) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	settle := time.NewTimer(settleTime) // the image before this one may have left some
	defer settle.Stop()
	complained := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-died:
			settle.Reset(settleTime)
			select {
			case <-ctx.Done():
				return
			case <-settle.C:
			}
		case <-settle.C:
		case <-tick.C:
		}
		select {
		case <-died: // this look sees them too
		default:
		}
		n, err := ours.reapOrphans(ctx)
		if err != nil && !complained {
			log.Warn().Err(err).Msg("orphaned processes are not reaped. Try: mount -t proc proc /proc in the container, or run it with an init such as docker run --init")
		}
		complained = err != nil
		if n > 0 {
			log.Debug().Int("orphans", n).Msg("orphaned processes have ended")
		}
	}
}

// reapOrphans looks once and returns how many orphans it has reaped.
func (t *table) reapOrphans(ctx context.Context) (reaped int, err error) {
	if !anyEnded() { // as a rule: those of ours have been waited for
		return 0, nil
	}
	settled, suspects, err := t.suspect(zombies)
	if err != nil || suspects == 0 {
		return 0, err
	}
	select {
	case <-settled:
	case <-ctx.Done():
		return 0, nil
	}
	t.confirm(func(pid int) {
		if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err == nil && got == pid {
			reaped++
		}
	})
	return reaped, nil
}

// anyEnded reports whether there is a child that has ended and was not waited for. It cannot say which
// there are: asked again it tells of the same one.
func anyEnded() bool {
	var first unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &first, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && first.Signo != 0
}

// zombies lists the children of this process that have ended and were not waited for.
func zombies() (pids []int, err error) {
	// With the /proc of another namespace the numbers mean other processes.
	if self, err := os.Readlink("/proc/self"); err != nil {
		return nil, fmt.Errorf("child: listing processes: %w", err)
	} else if self != strconv.Itoa(os.Getpid()) {
		return nil, fmt.Errorf("child: /proc is that of another process namespace: process %d is %s there", os.Getpid(), self)
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("child: listing processes: %w", err)
	}
	defer func() { _ = proc.Close() }()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("child: listing processes: %w", err)
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it is gone
		}
		if state, parent := parseStat(stat); state == "Z" && parent == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// parseStat reads a process's state and its parent's number. The name before them may hold anything, a
// closing bracket too.
func parseStat(stat []byte) (state string, parent int) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(string(fields[1]))
	return string(fields[0]), parent
}
