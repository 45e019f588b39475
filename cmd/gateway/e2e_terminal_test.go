package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pane is a real terminal of 80 by 24, which tmux keeps.
type pane struct {
	t      *testing.T
	socket string
}

// openPane runs the program in a terminal, against the gateway of the house.
func (h *house) openPane(args ...string) *pane {
	h.t.Helper()
	return openPane(h.t, []string{"GATEWAY_CONFIG=" + h.config, raceOptions}, append([]string{binary(h.t)}, args...)...)
}

// openPane runs a command in a terminal.
func openPane(t *testing.T, env []string, command ...string) *pane {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("there is no tmux. Try: make deps")
	}
	p := &pane{t: t, socket: filepath.Join(t.TempDir(), "tmux")}
	t.Cleanup(func() { _ = p.tmux("kill-server").Run() })
	words := []string{"-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24"}
	for _, one := range append(env, "LANG=C.UTF-8") {
		words = append(words, "-e", one)
	}
	words = append(words, "sh", "-c", `"$0" "$@"; echo "exit $?"; exec cat`)
	out, err := p.tmux(append(words, command...)...).CombinedOutput()
	require.NoError(t, err, string(out))
	return p
}

func (p *pane) tmux(args ...string) *exec.Cmd {
	cmd := exec.Command("tmux", append([]string{"-u", "-S", p.socket}, args...)...)
	cmd.Env = append(os.Environ(), "TMUX=", "TERM=xterm-256color", "LANG=C.UTF-8")
	return cmd
}

func (p *pane) keys(keys ...string) {
	p.t.Helper()
	require.NoError(p.t, p.tmux(append([]string{"send-keys"}, keys...)...).Run())
}

func (p *pane) typed(text string) {
	p.t.Helper()
	require.NoError(p.t, p.tmux("send-keys", "-l", text).Run())
}

// screen is what the terminal shows, and what has scrolled out of it.
func (p *pane) screen() string {
	out, err := p.tmux("capture-pane", "-p", "-S", "-1000").Output()
	require.NoError(p.t, err)
	return string(out)
}

// await waits until the terminal shows every text.
func (p *pane) await(texts ...string) string {
	p.t.Helper()
	return p.until(strings.Join(texts, ", "), func(screen string) bool {
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				return false
			}
		}
		return true
	})
}

func (p *pane) until(what string, is func(screen string) bool) string {
	p.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		screen := p.screen()
		if is(screen) {
			return screen
		}
		select {
		case <-tick.C:
		case <-deadline:
			p.t.Fatalf("the terminal never shows %s:\n%s", what, screen)
		}
	}
}

func (p *pane) resize(width, height string) {
	p.t.Helper()
	require.NoError(p.t, p.tmux("resize-window", "-x", width, "-y", height).Run())
}

func TestTopInATerminal(t *testing.T) {
	h := newHouse(t, "agents:\n  slow: { type: command, command: [sleep, \"600\"] }\n")
	h.start()
	_, _, code := h.gateway("send", "--no-wait", "--agent", "slow", "--session", "desk", "a long one")
	require.Zero(t, code)
	_, _, code = h.gateway("send", "--session", "quick", "a short one")
	require.Zero(t, code)
	p := h.openPane("top")
	p.await("gateway Running", "1 running, 0 queued", "LANE", "cron", "main", "subagent", "desk", "running", "completed", "a short one")

	// p pauses the first lane, which is cron, and resumes it.
	p.keys("p")
	p.await("lane cron is paused", "  paused")
	p.keys("p")
	p.until("a resumed lane", func(s string) bool {
		return strings.Contains(s, "starts turns again") && !strings.Contains(s, "  paused")
	})

	// A restart passes with its states, and the turn runs again.
	_, _, code = h.gateway("restart", "--force")
	require.Zero(t, code)
	p.await("Respawning → Stopped → Starting → Running", "gateway Running", "1 running, 0 queued")

	// Running turns come first.
	p.until("the turn that runs in the first line", func(s string) bool {
		return regexp.MustCompile(`INPUT\s+\S+ +desk +slow +running`).MatchString(s)
	})

	// / shows only lines with a text: one turn, wherever a late answer puts it in the list.
	p.keys("/")
	p.typed("desk")
	p.keys("Enter")
	p.until("one turn", func(s string) bool { return strings.Contains(s, "a long one") && !strings.Contains(s, "a short one") })

	// c asks before it cancels.
	p.keys("j", "j", "j", "c")
	p.await("cancel turn", "y for yes")
	p.keys("n")
	p.await("continues")
	p.keys("c", "y")
	p.await("is cancelled", "cancelled", "0 running, 0 queued")
	p.resize("50", "14")
	p.await("gateway Running", "LANE")
	p.keys("Escape") // on its own: with a key behind it, it would be Alt
	p.await("select")
	p.keys("q")
	p.await("exit 0")
}

func TestProgressInATerminal(t *testing.T) {
	h := newHouse(t, "agents:\n  slow: { type: command, command: [sleep, \"600\"] }\n")
	h.start()
	_, _, code := h.gateway("send", "--no-wait", "--agent", "slow", "a long one")
	require.Zero(t, code)
	p := h.openPane("restart", "--drain-timeout", "1m")
	p.await("restarting: Draining, waiting for 1 running turn, at most")
	_, _, code = h.gateway("resume")
	require.Zero(t, code)
	p.await("the restart was called off")
	require.NotContains(t, p.screen(), "restarting: Draining")
}

const chatAgents = `
agents:
  parts: { type: command, command: [sh, -c, 'echo "the **first** part"; while [ ! -e GO ]; do sleep 0.02; done; echo "and the *second* part"'] }
  slow: { type: command, command: [sh, -c, 'echo begun; sleep 600'] }
`

func TestChatInATerminal(t *testing.T) {
	h := newHouse(t, "")
	gate := filepath.Join(h.dir, "go")
	h.configure(strings.ReplaceAll(chatAgents, "GO", gate))
	h.start()
	p := h.openPane("chat", "--session", "desk", "--agent", "parts")
	p.await("session desk", "a message")

	// A restart in the middle of an answer does not change the final screen.
	p.typed("tell me")
	p.keys("C-j")
	p.typed("in two lines")
	p.keys("Enter")
	p.await("› tell me", "  in two lines", "the **first** part", "answering")
	_, _, code := h.gateway("restart", "--force")
	require.Zero(t, code)
	p.await("the **first** part", "answering")
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	screen := p.until("the whole answer", func(s string) bool {
		return strings.Contains(s, "and the second part") && !strings.Contains(s, "answering")
	})
	require.Equal(t, 1, strings.Count(screen, "first"), screen)
	require.Equal(t, 1, strings.Count(screen, "second"), screen)
	require.Equal(t, 1, strings.Count(screen, "› tell me"), screen)

	// Up brings the message back, to be sent again.
	p.keys("Up", "Enter")
	p.until("a second answer", func(s string) bool { return strings.Count(s, "second part") == 2 && !strings.Contains(s, "answering") })
	p.keys("C-d")
	p.await("come back with: gateway chat --session desk", "exit 0")
	out, _, _ := h.gateway("turns", "list", "--session", "desk", "--json")
	require.Equal(t, 2, strings.Count(out, `"status": "completed"`), out)

	// The conversation is shown when the chat is opened again; Esc cancels.
	p = h.openPane("chat", "--session", "desk", "--agent", "slow")
	p.await("› tell me", "and the second part")
	p.typed("for ever")
	p.keys("Enter")
	p.await("begun", "Esc cancels")
	p.keys("Escape")
	p.until("the cancellation", func(s string) bool { return strings.Contains(s, "cancelled") && !strings.Contains(s, "answering") })

	// The chat prints how to come back, and the turn continues.
	p.typed("once more")
	p.keys("Enter")
	p.await("answering", "begun")
	p.keys("C-c")
	p.await("the turn continues; come back with: gateway chat --session desk", "exit 0")
	p = h.openPane("chat", "--session", "desk")
	p.await("› once more", "begun", "answering")
	p.keys("C-c")
	p.await("exit 0")
}

// Chat waits for a gateway that is killed while it answers, and while a message is being sent.
func TestChatOutlivesAKilledGateway(t *testing.T) {
	h := newHouse(t, "")
	gate := filepath.Join(h.dir, "go")
	h.configure(strings.ReplaceAll(chatAgents, "GO", gate))
	h.start()
	p := h.openPane("chat", "--agent", "parts")
	p.await("a message")
	p.typed("one")
	p.keys("Enter")
	p.await("the **first** part")
	h.signal(syscall.SIGKILL)
	h.wait()
	p.await("the gateway does not answer")
	p.typed("two")
	p.keys("Enter")
	p.await("waits: two")
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	h.start()
	screen := p.until("both answers", func(s string) bool { return strings.Count(s, "second part") == 2 && !strings.Contains(s, "answering") })
	require.Equal(t, 2, strings.Count(screen, "first part"), screen)
	p.keys("C-c")
	p.await("exit 0")
	out, _, _ := h.gateway("turns", "list", "--json")
	require.Equal(t, 2, strings.Count(out, `"status": "completed"`), "no message made two turns: %s", out)
}

func TestNoColorIsHonoured(t *testing.T) {
	h := newHouse(t, "")
	h.start()
	_, _, code := h.gateway("send", "# a title")
	require.Zero(t, code)
	t.Setenv("NO_COLOR", "1")
	for _, name := range []string{"top", "chat"} {
		p := h.openPane(name)
		p.await("a title")
		out, err := p.tmux("capture-pane", "-p", "-e").Output()
		require.NoError(t, err)
		require.NotRegexp(t, `\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]`, string(out), name)
		p.keys("C-c")
		p.await("exit 0")
	}
}
