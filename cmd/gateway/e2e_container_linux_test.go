package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/statedir"
)

// alone makes the command process 1 of a process namespace, with a /proc of its own: what it is in a
// container without an init. With user the namespace has its own users too, which needs no root.
func alone(cmd *exec.Cmd, user bool) {
	if cmd.Err == nil {
		cmd.Path, cmd.Err = exec.LookPath("sh")
	}
	cmd.Args = append([]string{"sh", "-c", `mount --make-rprivate / && mount -t proc proc /proc && exec "$0" "$@"`}, cmd.Args...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	if user {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

// newContainer is a house whose gateways are process 1, one container after another over the same state
// folder. The test is skipped where the system permits no namespace.
func newContainer(t *testing.T, config string) *house {
	t.Helper()
	var reasons []string
	forbidden := true
	for _, user := range []bool{false, true} {
		trial := exec.CommandContext(t.Context(), "sh", "-c", "echo $$")
		alone(trial, user)
		out, err := trial.CombinedOutput()
		if err == nil && strings.TrimSpace(string(out)) == "1" {
			h := newHouse(t, config)
			h.place = func(cmd *exec.Cmd) { alone(cmd, user) }
			return h
		}
		reasons = append(reasons, fmt.Sprintf("%v %s", err, strings.TrimSpace(string(out))))
		forbidden = forbidden && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSPC) ||
			errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) ||
			strings.Contains(string(out), "ermission denied") || strings.Contains(string(out), "not permitted"))
	}
	reason := "no process namespace can be made here: " + strings.Join(reasons, "; ")
	if os.Getenv("CI") == "true" && !forbidden {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return nil
}

// processes counts the processes of the gateway's namespace by their state, such as Z for a zombie.
func (h *house) processes() map[string]int {
	h.t.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/proc/[0-9]*/stat", h.cmd.Process.Pid))
	require.NoError(h.t, err)
	states := make(map[string]int)
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // it is gone
		}
		after := string(b[bytes.LastIndexByte(b, ')')+1:])
		states[strings.Fields(after)[0]]++
	}
	require.NotEmpty(h.t, states)
	return states
}

// isAlone reports whether process 1 is the only process in the namespace.
func (h *house) isAlone() bool {
	n := 0
	for _, of := range h.processes() {
		n += of
	}
	return n == 1
}

// orphans is how many orphans the gateway reports as reaped.
func (h *house) orphans() (n int) {
	for line := range strings.Lines(h.logged()) {
		var entry struct{ Orphans int }
		if json.Unmarshal([]byte(line), &entry) == nil {
			n += entry.Orphans
		}
	}
	return n
}

func TestAsProcess1ItRestartsAndStops(t *testing.T) {
	for _, mode := range []string{"exec", "in-process"} {
		t.Run(mode, func(t *testing.T) {
			h := newContainer(t, "lifecycle: { respawn: "+mode+" }")
			h.start()
			before := h.waitState("Running")
			require.Equal(t, 1, before.PID)
			for i := range 3 {
				out, stderr, code := h.gateway("send", fmt.Sprint("hello ", i))
				require.Zero(t, code, "%s%s", out, stderr)
				require.Equal(t, fmt.Sprint("hello ", i), strings.TrimSpace(out))
				out, stderr, code = h.gateway("restart")
				require.Zero(t, code, "%s%s", out, stderr)
				require.Contains(t, out, "restarted in")
			}
			after := h.waitState("Running")
			require.Equal(t, 1, after.PID)
			require.Equal(t, mode, after.RespawnMode)
			require.Equal(t, mode == "in-process", after.BootID == before.BootID)
			require.True(t, h.isAlone(), "what prepared the restart was waited for")
			h.signal(syscall.SIGTERM)
			require.Equal(t, 0, h.wait())
			require.Empty(t, leftovers(t, h.state()))

			// Outside the namespace process 1 is another process, and alive.
			h.start()
			out, stderr, code := h.gateway("stop")
			require.Zero(t, code, "%s%s", out, stderr)
			require.Contains(t, out, "stopped in")
			require.False(t, ownedByAnyone(h), "the state folder is free once stop returns")
			require.Equal(t, 0, h.wait())
			require.Empty(t, leftovers(t, h.state()))
		})
	}
}

// ownedByAnyone reports whether the instance lock is held, asked of the kernel.
func ownedByAnyone(h *house) bool {
	h.t.Helper()
	guard, err := os.Open(filepath.Join(h.state(), statedir.LockFile))
	require.NoError(h.t, err)
	defer func() { require.NoError(h.t, guard.Close()) }()
	return syscall.Flock(int(guard.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}

func TestAsProcess1ItStopsFromInside(t *testing.T) {
	// The kernel ends the process that outlives its turn with process 1; its odd number identifies it.
	mark := fmt.Sprintf("%d.%d", 3600+rand.N(1000), rand.N(1_000_000))
	h := newContainer(t, "agents:\n"+
		"  stays: { type: command, command: [sh, -c, \"setsid sh -c 'sleep "+mark+" >/dev/null 2>&1 &'\"] }\n"+
		"  stop:  { type: command, command: [sh, -c, '"+binary(t)+" --state-dir $STATE stop'], env: { STATE: STATE_DIR } }\n")
	b, err := os.ReadFile(h.config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(h.config, []byte(strings.ReplaceAll(string(b), "STATE_DIR", h.state())), 0o600))
	h.start()
	id := h.send("stays", "x")
	h.eventually("it has ended", func() bool { return h.turn(id).Status == "completed" })
	h.eventually("it left a process", func() bool { return running(mark) })
	h.send("stop", "x")
	require.Equal(t, 0, h.wait())
	require.Empty(t, leftovers(t, h.state()))
	h.eventually("no process of the namespace is left", func() bool { return !running(mark) })
}

// running reports whether a process has the argument.
func running(argument string) bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		if b, err := os.ReadFile(line); err == nil && strings.Contains(string(b), "\x00"+argument+"\x00") {
			return true
		}
	}
	return false
}

func TestAsProcess1ItReapsOrphansAndMisreadsNoExitCode(t *testing.T) {
	const turns, lanes = 200, 12
	h := newContainer(t, fmt.Sprintf(`
lanes: { main: { concurrency: %d } }
lifecycle: { respawn: exec }
agents:
  # Some end before the program, some are killed with its group, some outlive the turn.
  leaves: { type: command, command: [sh, -c, "read n; (true & setsid true & sleep 0.2 & setsid sleep 0.3 &) >/dev/null 2>&1; (setsid sh -c 'sleep 0.1 & sleep 0.2' >/dev/null 2>&1 &); exit $n"] }
  says:   { type: command, command: [sh, -c, "(sleep 0.2 &) ; echo hi"] }
`, lanes))
	h.start()
	s := h.waitState("Running")
	var clients sync.WaitGroup
	codes := make([]int, turns)
	ids := make([]string, turns)
	failures := make(chan error, turns)
	for client := range lanes {
		clients.Go(func() {
			for i := client; i < turns; i += lanes {
				codes[i] = rand.N(3) * rand.N(125) // often 0
				a, _, err := ask(t.Context(), http.DefaultClient, s.Address, fmt.Sprint("s", i), "leaves", strconv.Itoa(codes[i]), fmt.Sprint("key", i), true)
				if err != nil {
					failures <- err
				}
				ids[i] = a.ID
				if i%10 == 0 {
					if said, _, err := ask(t.Context(), http.DefaultClient, s.Address, fmt.Sprint("says", i), "says", "x", fmt.Sprint("says", i), false); err != nil || said.text() != "hi" {
						failures <- fmt.Errorf("says: %q: %w", said.text(), err)
					}
				}
			}
		})
	}
	clients.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	require.False(t, t.Failed())
	h.eventually("every turn has ended", func() bool {
		s, err := h.status()
		return err == nil && s.Turns.Queued == 0 && s.Turns.Running == 0
	})
	for i, id := range ids {
		turn := h.turn(id)
		if codes[i] == 0 {
			require.Equal(t, "completed", turn.Status, turn.Error)
			continue
		}
		require.Equal(t, "failed", turn.Status)
		require.Equal(t, fmt.Sprintf("sh: exit code %d", codes[i]), strings.TrimSpace(turn.Error))
	}
	h.eventually("nobody is left but process 1", h.isAlone)
	require.GreaterOrEqual(t, h.orphans(), turns)
	t.Logf("%d turns, %d orphans", turns, h.orphans())

	// The next image reaps what the one before it adopted.
	id := h.send("leaves", "0")
	h.eventually("it has ended", func() bool { return h.turn(id).Status == "completed" })
	out, stderr, code := h.gateway("restart")
	require.Zero(t, code, "%s%s", out, stderr)
	h.eventually("none is left", h.isAlone)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

// A killed container leaves a lockfile that names process 1: inside the next container that is the next gateway itself,
// outside it is another process.
func TestAContainerStartsAgainOverAStaleLockfile(t *testing.T) {
	h := newContainer(t, slowAgents)
	h.start()
	id := h.send("slow", "600")
	h.waitRunning(1)
	for range 3 {
		h.signal(syscall.SIGKILL)
		h.wait()
		b, err := os.ReadFile(filepath.Join(h.state(), statedir.PIDFile))
		require.NoError(t, err)
		require.Equal(t, "1", strings.TrimSpace(string(b)))
		out, _, code := h.gateway("status")
		require.Equal(t, 3, code, out)
		require.Contains(t, out, "it crashed or was killed")
		_, stderr, code := h.gateway("stop")
		require.NotZero(t, code)
		require.Contains(t, stderr, "no gateway")

		h.start()
		require.Equal(t, 1, h.waitState("Running").PID)
		h.eventually("what was interrupted runs again", func() bool { return h.turn(id).Status == "running" })
		// Neither a gateway outside nor a second container gets the folder meanwhile.
		_, stderr, code = h.gateway("run")
		require.Equal(t, 78, code)
		require.Contains(t, stderr, "already runs")
		second := h.command("run")
		h.place(second)
		refusal, err := second.CombinedOutput()
		require.Error(t, err)
		require.Equal(t, 78, second.ProcessState.ExitCode(), string(refusal))
		require.Contains(t, string(refusal), "already runs")
		_, _, code = h.gateway("turns", "cancel", id)
		require.Zero(t, code)
		id = h.send("slow", "600")
		h.waitRunning(1)
	}
	// And outside of any container, over what a container left.
	h.signal(syscall.SIGKILL)
	h.wait()
	h.place = nil
	h.start()
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}
