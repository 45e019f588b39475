package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/failpoint"
)

const handoverConfig = `
lifecycle: { respawn: %MODE%, drain_timeout: 20s, respawn_timeout: 2s }
turns: { max_attempts: 100 }
agents:
  slow: { type: command, command: [sh, -c, "sleep 0.05; cat"] }
`

// newHandoverHouse is a house whose gateways can be made to die or stop at a moment; see failpoint.
func newHandoverHouse(t *testing.T, mode, moment string) (h *house, arm func()) {
	t.Helper()
	once := filepath.Join(t.TempDir(), "once")
	h = newHouse(t, strings.ReplaceAll(handoverConfig, "%MODE%", mode), failpoint.Env+"="+moment, failpoint.EnvOnce+"="+once)
	return h, func() { require.NoError(t, os.WriteFile(once, nil, 0o600)) }
}

func TestASuccessorTakesOverFromRunToRun(t *testing.T) {
	h := newHouse(t, "lifecycle: { respawn: spawn }")
	h.start()
	first := h.waitState("Running")
	require.Equal(t, "spawn", first.RespawnMode)
	client := &http.Client{}
	defer client.CloseIdleConnections()
	for i := range 3 {
		before := h.waitState("Running")
		_, _, err := ask(t.Context(), client, before.Address, "s", "echo", "hello", strings.Repeat("k", i+1), false) // one connection for all
		require.NoError(t, err)
		out, stderr, code := h.gateway("restart", "--reason", "new binary")
		require.Zero(t, code, "%s%s", out, stderr)
		after := h.waitState("Running")
		require.NotEqual(t, before.PID, after.PID)
		require.NotEqual(t, before.BootID, after.BootID)
		require.Equal(t, before.Address, after.Address)
		var events []string
		for _, hop := range after.History[len(after.History)-7:] {
			events = append(events, hop.Event)
		}
		require.Equal(t, []string{"restart", "prepared", "drained", "closed", "respawned", "", "started"}, events, "the history continues")
		h.eventually("the old process has gone", func() bool { return !alive(before.PID) })
		if i == 0 {
			require.Equal(t, 0, h.wait())
		}
	}
	_, stderr, code := h.gateway("run")
	require.Equal(t, 78, code, "one gateway, for every user")
	require.Contains(t, stderr, "already runs")
	out, stderr, code := h.gateway("stop")
	require.Zero(t, code, "%s%s", out, stderr)
	require.Empty(t, leftovers(t, h.state()))
	require.Empty(t, h.alive())
}

// A stop that is sent to the process that has just handed over reaches the gateway.
func TestASignalToThePredecessorReachesTheSuccessor(t *testing.T) {
	h := newHouse(t, "lifecycle: { respawn: spawn }")
	h.start()
	s := h.waitState("Running")
	// A stream that stays open keeps the predecessor there for a while.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Address+"/v1/turns", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	_, _, code := h.gateway("restart", "--no-wait")
	require.Zero(t, code)
	for alive(s.PID) { // at every moment until it has gone
		_ = syscall.Kill(s.PID, syscall.SIGTERM)
	}
	h.eventually("all have gone", func() bool { return len(h.alive()) == 0 })
	h.cmd = nil
	require.Empty(t, leftovers(t, h.state()))
}

// TestADeathAtEveryStepOfAHandOver kills or stops either process at each step: afterwards, or once a
// supervisor or a person has started the gateway again, exactly one works, and what was accepted is carried
// out once.
func TestADeathAtEveryStepOfAHandOver(t *testing.T) {
	spawn := map[string]string{ // → the process that serves afterwards without a start: old, new, or nobody
		"predecessor.asked=kill": "nobody", "predecessor.prepared=kill": "nobody", "close.told=kill": "nobody", "close.done=kill": "nobody",
		"predecessor.gone=kill": "new", "predecessor.ready=kill": "new", "predecessor.serve=kill": "new",
		"successor.asked=kill": "old", "successor.prepared=kill": "old", "successor.go=kill": "old", "start.lock=kill": "old",
		"start.store=kill": "old", "start.take over=kill": "old", "successor.ready=kill": "old or nobody", "successor.serve=kill": "nobody",
		"successor.asked=stop": "old", "successor.prepared=stop": "old", "successor.go=stop": "old", "start.store=stop": "old",
		"successor.ready=stop": "stopped", "successor.serve=stop": "stopped",
	}
	exec := map[string]string{
		"predecessor.asked=kill": "nobody", "predecessor.prepared=kill": "nobody", "close.told=kill": "nobody", "close.done=kill": "nobody",
		"respawn.carried=kill": "nobody", "respawn.exec=kill": "nobody", "start.lock=kill": "nobody", "start.listen=kill": "nobody",
		"start.store=kill": "nobody", "start.take over=kill": "nobody", "successor.asked=kill": "old", "successor.asked=stop": "old",
	}
	for mode, moments := range map[string]map[string]string{"spawn": spawn, "exec": exec} {
		for moment, survivor := range moments {
			t.Run(mode+" "+moment, func(t *testing.T) {
				t.Parallel()
				dieAt(t, mode, moment, survivor)
			})
		}
	}
}

func dieAt(t *testing.T, mode, moment, survivor string) {
	h, arm := newHandoverHouse(t, mode, moment)
	h.start()
	before := h.waitState("Running")
	var record history
	for _, text := range []string{"one", "two", "three"} {
		a, _, err := ask(t.Context(), http.DefaultClient, before.Address, "desk", "slow", text, text, true)
		require.NoError(t, err)
		record.acknowledged(a.ID, "desk", text)
	}
	arm()
	h.restartWithoutWaiting()
	if survivor == "old or nobody" { // the successor died before or after it read `serve`
		h.eventually("it is decided", func() bool {
			s, err := h.status()
			if err == nil && s.State == "Running" && len(s.History) > len(before.History)+1 {
				survivor = "old"
			}
			if len(h.alive()) == 0 {
				survivor = "nobody"
			}
			return survivor != "old or nobody"
		})
	}
	switch survivor {
	case "old", "new":
		h.eventually("the "+survivor+" one serves", func() bool {
			s, err := h.status()
			return err == nil && s.State == "Running" && (s.BootID == before.BootID) == (survivor == "old") && len(s.History) > len(before.History)+1
		})
		s := h.waitState("Running")
		_, stderr, code := h.gateway("run")
		require.Equal(t, 78, code, stderr)
		_, _, err := ask(t.Context(), http.DefaultClient, s.Address, "desk", "slow", "four", "four", false)
		require.NoError(t, err)
	case "stopped": // the stopped process is the gateway; no other process can get the lock
		h.eventually("the old one has gone", func() bool { return !alive(before.PID) })
		_, stderr, code := h.gateway("run")
		require.Equal(t, 78, code, stderr)
		// The end of the old one has orphaned their process group, so the kernel may have sent SIGHUP and SIGCONT
		// already, as POSIX specifies: then the process continues, and restarts once more.
		require.NoError(t, syscall.Kill(-h.groups[0], syscall.SIGCONT))
	case "nobody":
		h.eventually("nobody is left", func() bool { return len(h.alive()) == 0 })
		h.cmd = nil
		h.start()
	}
	h.waitState("Running")
	h.eventually("every turn has ended", func() bool {
		s, err := h.status()
		return err == nil && s.State == "Running" && s.Turns.Queued == 0 && s.Turns.Running == 0
	})
	h.eventually("exactly one gateway", func() bool { return len(h.alive()) == 1 })
	h.judge(&record)
	out, stderr, code := h.gateway("stop")
	require.Zero(t, code, "%s%s", out, stderr)
	h.cmd = nil
	h.eventually("it has ended", func() bool { return len(h.alive()) == 0 }) // the folder is free a moment before
	require.Empty(t, leftovers(t, h.state()))
}

// A successor that hangs before it is prepared never costs more than the wait for it, even with a short
// drain.
func TestASuccessorThatHangsIsCalledOff(t *testing.T) {
	for _, mode := range []string{"exec", "spawn"} {
		h := newHouse(t, "lifecycle: { drain_timeout: 4s, respawn: "+mode+" }"+slowAgents)
		own := filepath.Join(h.dir, "own-gateway")
		require.NoError(t, os.Symlink(binary(t), own))
		h.program = own
		h.start()
		before := h.waitState("Running")
		id := h.send("slow", "600")
		h.waitRunning(1)
		require.NoError(t, os.Remove(own))
		require.NoError(t, os.WriteFile(own, []byte("#!/bin/sh\nexec sleep 600\n"), 0o700))
		out, stderr, code := h.gateway("restart")
		require.Equal(t, 1, code, out)
		require.Contains(t, stderr, "called off")
		require.Contains(t, stderr, "no answer within 3s")
		after := h.waitState("Running")
		require.Equal(t, before.BootID, after.BootID)
		require.Zero(t, after.Generation)
		require.Equal(t, "running", h.turn(id).Status, "nothing was disturbed")
		h.signal(syscall.SIGTERM)
		require.Equal(t, 0, h.wait())
	}
}

func TestARestartMayWaitLessOrLongerForTurns(t *testing.T) {
	h := newHouse(t, "lifecycle: { drain_timeout: 2s }"+slowAgents)
	h.start()
	running := func() string {
		before := h.waitState("Running")
		id := h.send("slow", "4") // seconds, longer than the drain
		h.waitRunning(1)
		require.Equal(t, before.BootID, h.waitState("Running").BootID)
		return id
	}
	id := running()
	out, stderr, code := h.gateway("restart", "--drain-timeout", "50s")
	require.Zero(t, code, "%s%s", out, stderr)
	require.Equal(t, "completed", h.turn(id).Status, "it had the time")
	require.Contains(t, h.hopEvents(), "drained")

	h.configure("lifecycle: { drain_timeout: 1h }" + slowAgents)
	_, _, code = h.gateway("restart")
	require.Zero(t, code)
	id = h.send("slow", "600")
	h.waitRunning(1)
	out, stderr, code = h.gateway("restart", "--force")
	require.Zero(t, code, "%s%s", out, stderr)
	require.Contains(t, h.hopEvents(), "drain_timed_out")
	h.waitRunning(1)
	// And a restart that is under way is hurried on.
	out, stderr, code = h.gateway("restart", "--no-wait")
	require.Zero(t, code, "%s%s", out, stderr)
	draining := h.waitState("Draining")
	out, stderr, code = h.gateway("restart", "--force", "--json")
	require.Zero(t, code, "%s%s", out, stderr)
	require.NotEqual(t, draining.BootID, h.waitState("Running").BootID)
	h.eventually("the turn runs again", func() bool { return h.turn(id).Status == "running" })
	_, stderr, code = h.gateway("restart", "--drain-timeout", "-1s")
	require.NotZero(t, code)
	require.Contains(t, stderr, "from 0s to")
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

func (h *house) hopEvents() (events []string) {
	s, err := h.status()
	require.NoError(h.t, err)
	for _, hop := range s.History {
		events = append(events, hop.Event)
	}
	return events
}

// alive lists the gateways of the house that have not ended; agents have process groups of their own. While a
// process replaces its image the kernel shows it without a group for a moment, so an empty list is read again.
func (h *house) alive() (pids []int) {
	for range 5 {
		if pids = h.look(); len(pids) > 0 {
			break
		}
	}
	return pids
}

func (h *house) look() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		b, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(b), ") ") // the command may hold spaces
		fields := strings.Fields(rest)
		if len(fields) < 3 || fields[0] == "Z" {
			continue
		}
		if group, err := strconv.Atoi(fields[2]); err == nil && slices.Contains(h.groups, group) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func alive(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(b), ") Z ")
}
