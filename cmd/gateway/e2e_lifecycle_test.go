package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/internal/statedir"

	"github.com/stretchr/testify/require"
)

const slowAgents = `
default_agent: echo
agents:
  slow:     { type: command, command: [sleep, "{input}"] }
  stubborn: { type: command, command: [sh, -c, "trap '' TERM; echo deaf; while :; do sleep 1; done"] }
`

func TestASecondGatewayIsRefusedAtOnce(t *testing.T) {
	h := newHouse(t, "")
	h.start()
	s, err := h.status()
	require.NoError(t, err)
	_, stderr, code := h.gateway("run")
	require.Equal(t, 78, code)
	require.Contains(t, stderr, "already runs")
	require.Contains(t, stderr, s.Address)
	require.Contains(t, stderr, "Try:")
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

func TestSIGUSR1WithoutAuthorisationChangesNothing(t *testing.T) {
	h := newHouse(t, "")
	h.start()
	before := h.waitState("Running")
	h.signal(syscall.SIGUSR1)
	h.eventually("a warning", func() bool { return strings.Contains(h.logged(), "received SIGUSR1; refused") })
	after := h.waitState("Running")
	require.Equal(t, before.BootID, after.BootID)
	require.Len(t, after.History, len(before.History))

	out, stderr, code := h.gateway("restart", "--authorize-signal")
	require.Zero(t, code, "%s%s", out, stderr)
	h.signal(syscall.SIGUSR1)
	h.eventually("a new image", func() bool {
		s, err := h.status()
		return err == nil && s.BootID != before.BootID && s.State == "Running"
	})
	h.signal(syscall.SIGUSR1) // the authorisation is used up
	h.eventually("a warning of the new image", func() bool { return strings.Count(h.logged(), "received SIGUSR1; refused") == 2 })
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

func TestARestartKeepsTheProcessAndSaysHowLongItTook(t *testing.T) {
	h := newHouse(t, "")
	h.start()
	before := h.waitState("Running")
	for range 3 {
		out, stderr, code := h.gateway("restart")
		require.Zero(t, code, "%s%s", out, stderr)
		require.Contains(t, out, "restarted in")
	}
	after := h.waitState("Running")
	require.Equal(t, before.PID, after.PID)
	require.Equal(t, before.Address, after.Address)
	require.NotEqual(t, before.BootID, after.BootID)
	require.Zero(t, after.Generation, "a fresh image")
	require.Equal(t, "respawned", after.History[len(after.History)-3].Event)
	require.Equal(t, "Stopped", after.History[len(after.History)-3].To)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	require.Empty(t, leftovers(t, h.state()))
}

func TestTheJournalHasEveryHopOnce(t *testing.T) {
	for _, mode := range []string{"exec", "spawn", "in-process"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, "lifecycle: { respawn: "+mode+" }\n")
			h.start()
			for range 4 {
				_, stderr, code := h.gateway("restart")
				require.Zero(t, code, stderr)
			}
			_, stderr, code := h.gateway("stop")
			require.Zero(t, code, stderr)
			h.eventually("it has ended", func() bool { return len(h.alive()) == 0 })
			var all []int
			require.NoError(t, statedir.ReadJournal(h.state(), func(line []byte) {
				var hop struct{ Seq int }
				require.NoError(t, json.Unmarshal(line, &hop))
				if hop.Seq > 0 { // entries without a number announce what the gateway is about to do
					all = append(all, hop.Seq)
				}
			}))
			slices.Sort(all) // by spawn two processes write it
			for i, seq := range all {
				require.Equal(t, i+1, seq)
			}
			require.Greater(t, len(all), 20)
		})
	}
}

func TestSIGHUPRestartsOnlyWithAValidConfiguration(t *testing.T) {
	h := newHouse(t, "")
	h.start()
	before := h.waitState("Running")
	h.configure("lifecycel: { drain_timeout: 1s }")
	h.signal(syscall.SIGHUP)
	h.eventually("a warning", func() bool { return strings.Contains(h.logged(), "received SIGHUP; refused") })
	require.Equal(t, before.BootID, h.waitState("Running").BootID)
	h.configure("lifecycle: { drain_timeout: 1s }")
	for range 2 { // the second one finds the disposition that the first image left
		h.signal(syscall.SIGHUP)
		h.eventually("a new image", func() bool {
			s, err := h.status()
			return err == nil && s.BootID != before.BootID && s.State == "Running"
		})
		before = h.waitState("Running")
	}
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

func TestARestartThatCannotSucceedIsCalledOff(t *testing.T) {
	t.Run("a broken configuration", func(t *testing.T) {
		h := newHouse(t, "")
		h.start()
		before := h.waitState("Running")
		h.configure("lanes: { main: { concurrency: none } }")
		out, stderr, code := h.gateway("restart", "--state-dir", h.state())
		require.Equal(t, 1, code, "%s%s", out, stderr)
		require.Contains(t, stderr, "concurrency")
		require.Contains(t, stderr, "Try:")
		after := h.waitState("Running")
		require.Equal(t, before.BootID, after.BootID)
		require.Equal(t, "resume", after.History[len(after.History)-1].Event)
	})
	t.Run("a broken executable", func(t *testing.T) {
		h := newHouse(t, "")
		own := filepath.Join(h.dir, "own-gateway")
		copyFile(t, binary(t), own)
		h.program = own
		h.start()
		before := h.waitState("Running")
		require.NoError(t, os.Remove(own))
		require.NoError(t, os.WriteFile(own, []byte("not a program"), 0o700))
		_, stderr, code := h.gateway("restart")
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "cannot be started")
		require.Equal(t, before.BootID, h.waitState("Running").BootID)
		require.NoError(t, os.Remove(own))
		copyFile(t, binary(t), own)
		out, stderr, code := h.gateway("restart")
		require.Zero(t, code, "%s%s", out, stderr)
		require.NotEqual(t, before.BootID, h.waitState("Running").BootID, "an upgrade: the file on disk is what runs now")
	})
}

func TestARestartMayChangeTheAddress(t *testing.T) {
	for _, mode := range []string{"exec", "in-process"} {
		h := newHouse(t, "lifecycle: { respawn: "+mode+" }")
		h.start()
		before := h.waitState("Running")
		free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		address := free.Addr().String()
		b, err := os.ReadFile(h.config)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(h.config, []byte(strings.ReplaceAll(string(b), "127.0.0.1:0", address)), 0o600))
		_, stderr, code := h.gateway("restart")
		require.Equal(t, 1, code, "another process has the port: the restart is called off")
		require.Contains(t, stderr, "address already in use")
		require.Equal(t, http.StatusOK, h.probe(before.Address, "/readyz"))
		require.NoError(t, free.Close())
		out, stderr, code := h.gateway("restart")
		require.Zero(t, code, "%s%s", out, stderr)
		require.Equal(t, address, h.waitState("Running").Address)
		require.Equal(t, http.StatusOK, h.probe(address, "/readyz"))
		h.signal(syscall.SIGTERM)
		require.Equal(t, 0, h.wait())
	}
}

func TestAnExecutableThatVanishesAfterTheCheckFallsBackToThisProcess(t *testing.T) {
	h := newHouse(t, slowAgents)
	own := filepath.Join(h.dir, "own-gateway")
	copyFile(t, binary(t), own)
	h.program = own
	h.start()
	before := h.waitState("Running")
	id := h.send("slow", "600") // holds the drain, so that the check is over before the image is replaced
	h.waitRunning(1)
	_, _, code := h.gateway("restart", "--no-wait")
	require.Zero(t, code)
	h.waitState("Draining")
	h.eventually("turns wait, so the check is over", func() bool {
		h.send("echo", "one more")
		s, err := h.status()
		return err == nil && s.Turns.Queued > 0
	})
	h.eventually("its process is gone", func() bool { return !hasChild(h.cmd.Process.Pid, own) })
	waiting := h.waitState("Draining").Turns.Queued
	// A request that is held meanwhile is answered by the same process.
	answered := make(chan error, 1)
	go func() {
		_, _, err := ask(t.Context(), http.DefaultClient, before.Address, "waits", "echo", "hello", "waits-1", false)
		answered <- err
	}()
	h.eventually("it waits", func() bool { s, err := h.status(); return err == nil && s.Turns.Queued == waiting+1 })
	require.NoError(t, os.Remove(own))
	_, _, code = h.gateway("turns", "cancel", id)
	require.Zero(t, code)
	h.eventually("a restart in place", func() bool { s, err := h.status(); return err == nil && s.State == "Running" && s.Generation == 1 })
	after := h.waitState("Running")
	require.Equal(t, before.BootID, after.BootID)
	require.Equal(t, "respawn_failed", after.History[len(after.History)-2].Event)
	require.Contains(t, after.History[len(after.History)-2].Reason, "no such file")
	require.NoError(t, <-answered)
	require.Equal(t, "cancelled", h.turn(id).Status)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

// hasChild reports whether the process has a child that runs the executable.
func hasChild(pid int, executable string) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for child := range strings.FieldsSeq(string(b)) {
			if exe, err := os.Readlink("/proc/" + child + "/exe"); err == nil && exe == executable {
				return true
			}
		}
	}
	return false
}

func TestSIGTERMDuringADrainStops(t *testing.T) {
	h := newHouse(t, slowAgents)
	h.start()
	id := h.send("slow", "600")
	h.waitRunning(1)
	_, _, code := h.gateway("restart", "--no-wait")
	require.Zero(t, code)
	h.waitState("Draining")
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	h.start()
	turn := h.turn(id)
	require.Contains(t, []string{"running", "queued"}, turn.Status, "the interrupted turn is tried again")
	h.eventually("it runs again", func() bool { return h.turn(id).Status == "running" })
	require.Equal(t, 1, h.turn(id).Attempt, "an interruption of ours costs no attempt")
}

func TestADrainThatDoesNotEndIsCutAtDrainTimeout(t *testing.T) {
	for _, mode := range []string{"exec", "in-process"} {
		h := newHouse(t, "lifecycle: { drain_timeout: 2s, respawn: "+mode+" }"+slowAgents)
		h.start()
		id := h.send("slow", "600")
		h.waitRunning(1)
		out, stderr, code := h.gateway("restart")
		require.Zero(t, code, "%s%s", out, stderr)
		s := h.waitState("Running")
		require.Equal(t, mode, s.RespawnMode)
		var events []string
		for _, hop := range s.History {
			events = append(events, hop.Event)
		}
		require.Contains(t, events, "drain_timed_out")
		h.eventually("it runs again", func() bool { return h.turn(id).Status == "running" })
		require.Equal(t, 1, h.turn(id).Attempt)
		h.signal(syscall.SIGTERM)
		require.Equal(t, 0, h.wait())
	}
}

func TestAStubbornTurnDoesNotHoldTheStop(t *testing.T) {
	h := newHouse(t, slowAgents)
	h.start()
	id := h.send("stubborn", "x")
	h.eventually("it hears no signal", func() bool { return h.turn(id).LastEvent > 1 })
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	h.start()
	h.eventually("it runs again", func() bool { return h.turn(id).Status == "running" })
	out, stderr, code := h.gateway("turns", "cancel", id)
	require.Zero(t, code, "%s%s", out, stderr)
	require.Equal(t, "cancelled", h.turn(id).Status)
}

// The program knows by itself which gateway it runs in, which turn it is, and whether it ran before.
func TestATurnThatAsksForTheRestartIsNotWaitedFor(t *testing.T) {
	h := newHouse(t, "agents:\n  self: { type: command, command: [sh, -c, \"if [ $GATEWAY_TURN_RUN = 1 ]; then $PROGRAM restart --no-wait; sleep 600; fi; echo run $GATEWAY_TURN_RUN, attempt $GATEWAY_TURN_ATTEMPT\"], env: { PROGRAM: \""+
		binary(t)+"\" } }\n")
	h.start()
	before := h.waitState("Running")
	began := time.Now()
	id := h.send("self", "x")
	h.eventually("a new image", func() bool {
		s, err := h.status()
		return err == nil && s.BootID != before.BootID && s.State == "Running"
	})
	require.Less(t, time.Since(began), 25*time.Second, "well before the drain's deadline of 30 s")
	h.eventually("the turn continues after the restart", func() bool { return h.turn(id).Status == "completed" })
	out, _, _ := h.gateway("turns", "show", "--json", id)
	require.Contains(t, out, `"runs": 2,`)
	require.Contains(t, out, `"output": "run 2, attempt 1"`)
}

// What a stop interrupts has most of shutdown_timeout to end, and not a time that is written down elsewhere.
func TestAnInterruptedTurnHasMostOfTheShutdownTimeout(t *testing.T) {
	h := newHouse(t, `
lifecycle: { shutdown_timeout: 60s }
agents:
  tidy: { type: command, command: [sh, -c, "trap 'sleep 4; touch tidied; exit 0' TERM; touch ready; while :; do sleep 0.1; done"], dir: . }
`)
	h.start()
	h.send("tidy", "whatever")
	h.eventually("it traps", func() bool {
		_, err := os.Stat(filepath.Join(h.dir, "ready"))
		return err == nil
	})
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	require.FileExists(t, filepath.Join(h.dir, "tidied"), "it was not killed before its time")
}

func TestReadyzFollowsWhetherTurnsStart(t *testing.T) {
	h := newHouse(t, slowAgents)
	h.start()
	s := h.waitState("Running")
	require.Equal(t, http.StatusOK, h.probe(s.Address, "/readyz"))
	h.send("slow", "600")
	h.waitRunning(1)
	_, _, code := h.gateway("restart", "--no-wait")
	require.Zero(t, code)
	h.eventually("the successor is prepared", func() bool {
		now, err := h.status()
		return err == nil && now.State == "Draining" && !now.Ready
	})
	require.Contains(t, h.hopEvents(), "prepared")
	require.Equal(t, http.StatusServiceUnavailable, h.probe(s.Address, "/readyz"))
	require.Equal(t, http.StatusOK, h.probe(s.Address, "/healthz"))
	out, stderr, code := h.gateway("resume")
	require.Zero(t, code, "%s%s", out, stderr)
	require.Equal(t, http.StatusOK, h.probe(s.Address, "/readyz"))
}

func TestMetricsFollowTheLifecycle(t *testing.T) {
	h := newHouse(t, slowAgents)
	h.start()
	s := h.waitState("Running")
	h.send("slow", "600")
	h.waitRunning(1)
	out, stderr, code := h.gateway("send", "--agent", "echo", "--session", "echo", "hello")
	require.Zero(t, code, "%s%s", out, stderr)
	require.Equal(t, http.StatusNotFound, h.probe(s.Address, "/v1/turns/none"))
	_, _, code = h.gateway("resume")
	require.Equal(t, 1, code, "there is nothing to call off")
	h.signal(syscall.SIGUSR1)
	h.eventually("a warning", func() bool { return strings.Contains(h.logged(), "received SIGUSR1; refused") })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Address+"/metrics", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	for _, line := range []string{
		`gateway_state{state="Running"} 1`, `gateway_state{state="Draining"} 0`, "gateway_ready 1", "gateway_hops_total 2",
		`gateway_turns{status="running"} 1`, `gateway_lane_running{lane="main"} 1`, "gateway_impossible_events_total 0",
		`gateway_state_duration_seconds_count{state="Starting"} 1`, `gateway_lifecycle_requests_total{event="resume",outcome="ignored"} 1`,
		`gateway_refused_signals_total{signal="SIGUSR1"} 1`,
		`gateway_turns_ended_total{lane="main",status="completed"} 1`, `gateway_turns_ended_total{lane="main",status="failed"} 0`,
		`gateway_turn_wait_seconds_count 1`, `gateway_turn_run_seconds_count{agent="echo",status="completed"} 1`,
		`gateway_http_answers_total{code="404"} 1`, "gateway_held_requests 0", "gateway_websockets 0",
	} {
		require.Contains(t, string(b), line+"\n")
	}
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

func TestStatusSaysWhatAKilledGatewayWasDoing(t *testing.T) {
	h := newHouse(t, "")
	h.start()
	h.eventually("the hop is written down, which holds up nobody", func() bool {
		journal, err := os.ReadFile(filepath.Join(h.state(), statedir.JournalFile))
		return err == nil && strings.Contains(string(journal), `"to":"Running"`)
	})
	h.signal(syscall.SIGKILL)
	h.wait()
	out, stderr, code := h.gateway("status")
	require.Equal(t, 3, code)
	require.Contains(t, out+stderr, "Running")
}

// send hands a turn over with the command line and returns its id.
func (h *house) send(agent, input string) string {
	h.t.Helper()
	out, stderr, code := h.gateway("send", "--no-wait", "--agent", agent, "--session", agent, input)
	require.Zero(h.t, code, "%s%s", out, stderr)
	return strings.TrimSpace(out)
}

// waitRunning returns once so many turns run, and that is written down: each has its attempt, whatever comes.
func (h *house) waitRunning(n int) {
	h.t.Helper()
	h.eventually("turns run", func() bool {
		if s, err := h.status(); err != nil || s.Turns.Running != n {
			return false
		}
		var written struct{ Turns []turnJSON }
		status, body := h.tryGet("/v1/turns?status=running")
		return status == http.StatusOK && json.Unmarshal(body, &written) == nil && len(written.Turns) == n
	})
}

func (h *house) probe(address, path string) int {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+address+path, nil)
	require.NoError(h.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(h.t, err)
	require.NoError(h.t, resp.Body.Close())
	return resp.StatusCode
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, b, 0o700))
}

// leftovers lists the files in the state folder that a clean stop should have removed.
func leftovers(t *testing.T, dir string) (left []string) {
	t.Helper()
	for _, name := range []string{statedir.SocketFile, statedir.PIDFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			left = append(left, name)
		}
	}
	return left
}
