package child

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// adoptOrphans makes this process the one that orphans go to, as process 1 is.
func adoptOrphans(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	t.Cleanup(func() { require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)) })
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// noChildren reports whether this process has none, running or ended.
func noChildren() bool {
	var first unix.Siginfo
	return errors.Is(unix.Waitid(unix.P_ALL, 0, &first, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil), unix.ECHILD)
}

func TestOrphansAreReapedAndNoExitStatusIsLost(t *testing.T) {
	adoptOrphans(t)
	reaper := NewReaper(zerolog.Nop())
	var workers sync.WaitGroup
	failures := make(chan error, 1000)
	for range 8 {
		workers.Go(func() {
			for range 40 {
				want := rand.N(100)
				// One orphan has ended before its parent, one ends soon after, and one lasts longer.
				cmd := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf("(true & sleep 0.01 & sleep 0.2 &) & exit %d", want))
				if err := Start(cmd); err != nil {
					failures <- err
					continue
				}
				if err := Wait(cmd); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
					failures <- fmt.Errorf("want exit code %d: %w", want, err)
				}
				if err := Start(exec.CommandContext(t.Context(), "/nowhere/program")); !errors.Is(err, os.ErrNotExist) {
					failures <- err
				}
			}
		})
	}
	workers.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	eventually(t, "no child is left", noChildren)
	reaper.Close()
	require.Empty(t, ours.pids)
	require.Zero(t, ours.current.starting)
}

// ended starts a program that is in no table, and returns once it has ended.
func ended(t *testing.T, exit int) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf("exit %d", exit))
	require.NoError(t, cmd.Start())
	require.NoError(t, unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
	return cmd
}

func TestAChildThatEndsBeforeItsStartIsNotedIsNotReaped(t *testing.T) {
	table := newTable()
	start := table.begin()
	cmd := ended(t, 7)
	looked := make(chan int)
	go func() {
		n, _ := table.reapOrphans(t.Context())
		looked <- n
	}()
	eventually(t, "it is suspected", func() bool {
		table.mu.Lock()
		defer table.mu.Unlock()
		_, suspected := table.suspects[cmd.Process.Pid]
		return suspected
	})
	other := table.begin() // a later start is not held up, and holds nothing up
	select {
	case <-looked:
		t.Fatal("the look did not wait for the start")
	default:
	}
	table.end(start, cmd.Process.Pid)
	require.Zero(t, <-looked)
	var exit *exec.ExitError
	require.ErrorAs(t, table.wait(cmd), &exit)
	require.Equal(t, 7, exit.ExitCode())
	table.end(other, 0)
}

func TestALookBeginsAgainAfterAStartThatFailed(t *testing.T) {
	table := newTable()
	start := table.begin()
	orphan := ended(t, 0) // nobody starts it through the table
	settled, suspects, err := table.suspect(zombies)
	require.NoError(t, err)
	require.Equal(t, 1, suspects)
	table.end(start, 0)
	<-settled
	table.confirm(func(pid int) { t.Errorf("%d may be anybody's", pid) })
	n, err := table.reapOrphans(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.ErrorIs(t, orphan.Wait(), unix.ECHILD)
}

func TestALookEndsWithItsContext(t *testing.T) {
	table := newTable()
	hangs := table.begin()
	cmd := ended(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	n, err := table.reapOrphans(ctx)
	require.NoError(t, err)
	require.Zero(t, n)
	table.end(hangs, cmd.Process.Pid)
	require.NoError(t, table.wait(cmd))
}

func TestTwoChildrenMayHaveOneNumberForAMoment(t *testing.T) {
	table := newTable()
	cmd := ended(t, 0)
	table.end(table.begin(), cmd.Process.Pid)
	table.end(table.begin(), cmd.Process.Pid) // the next one, before the first is taken out
	require.NoError(t, table.wait(cmd))
	require.Equal(t, map[int]int{cmd.Process.Pid: 1}, table.pids)
}

func TestNothingIsReapedWhereOrphansGoElsewhere(t *testing.T) {
	if os.Getpid() == 1 {
		t.Skip("as process 1 of a container the test is where orphans go")
	}
	require.False(t, adopts())
	reaper := NewReaper(zerolog.Nop())
	cmd := ended(t, 0)
	reaper.Close()
	require.NoError(t, cmd.Wait())
	reaper.Close()
}

func TestAProcessMayHaveAnyName(t *testing.T) {
	for stat, want := range map[string]string{
		"7 (sh) Z 1 7 7 0":             "Z 1",
		"7 (a) R 2 (b) S 33 7 7 0":     "S 33",
		"7 (x) Z) Z 1":                 "Z 1",
		"7 (several words) S 12 7 7 0": "S 12",
		"":                             " 0",
		"7 (sh)":                       " 0",
	} {
		state, parent := parseStat([]byte(stat))
		require.Equal(t, want, fmt.Sprintf("%s %d", state, parent), stat)
	}
}
