package terminal

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/stretchr/testify/require"

	"gateway/internal/client"
	"gateway/internal/client/clienttest"
	"gateway/queue"
)

func chatAt(t *testing.T, dir string, turns ...queue.Turn) *chat {
	t.Helper()
	c := client.In(dir)
	t.Cleanup(c.CloseIdleConnections)
	return newChat(chatLine{ctx: t.Context(), c: c, session: "desk", agent: "echo", inbox: make(chan tea.Msg, 64)}, turns)
}

func shown(m *chat) string { return ansi.Strip(strings.Join(m.screen(), "\n")) }

// pump passes reports of the gateway to the model until the screen has the text.
func pump(t *testing.T, m *chat, text string) {
	t.Helper()
	for deadline := time.After(time.Minute); !strings.Contains(shown(m), text); {
		select {
		case msg := <-m.line.inbox:
			m.Update(msg)
		case <-deadline:
			t.Fatalf("never %q:\n%s", text, shown(m))
		}
	}
}

func TestChatSendsOnceAndShowsEachPieceOnceAcrossCuts(t *testing.T) {
	var keys, resumed clienttest.Recorder
	dir := clienttest.Turn(t,
		keys.Of(func(r *http.Request) string {
			return r.Header.Get("Idempotency-Key") + " " + r.Header.Get("X-Session-Id")
		}, clienttest.Answers(clienttest.Cut, clienttest.Refusal(http.StatusServiceUnavailable, "away"), clienttest.Accepted)),
		resumed.Of(func(r *http.Request) string { return r.URL.Query().Get("starting_after") }, clienttest.Answers(
			clienttest.StreamThenCut(0, "created", "output_item.added", "output_text.delta:one "),
			clienttest.Refusal(http.StatusServiceUnavailable, "away"),
			clienttest.StreamThenCut(1, "output_item.added", "output_text.delta:one ", "output_text.delta:two "), // repeats the first deltas
			clienttest.Stream(4, "output_item.done", "output_item.added", "output_text.delta:afresh", "completed"),
		)),
		map[string]any{"status": "completed"})
	m := chatAt(t, dir)
	press(m, "h", "i", "enter")
	require.Contains(t, shown(m), "› hi")
	require.Contains(t, shown(m), "sending")
	pump(t, m, "afresh")
	pump(t, m, "\nsession desk")
	require.NotContains(t, shown(m), "one", "the text of an attempt that was interrupted is void")
	require.Equal(t, 1, strings.Count(shown(m), "afresh"))
	require.Equal(t, []string{"", "2", "2", "3"}, resumed.Asked())
	require.Len(t, keys.Asked(), 3)
	require.Equal(t, keys.Asked()[0], keys.Asked()[2], "a repeat must be the same turn")
	require.True(t, strings.HasPrefix(keys.Asked()[0], "chat-") && strings.HasSuffix(keys.Asked()[0], " desk"))
	require.Contains(t, m.farewell(), "come back with: gateway chat --session desk\n")
}

func TestChatReturnsARefusedMessageToTheInput(t *testing.T) {
	dir := clienttest.Turn(t, clienttest.Refusal(http.StatusNotFound, "there is no agent. Try: echo"), clienttest.Cut, map[string]any{})
	m := chatAt(t, dir)
	press(m, "h", "i", "enter")
	pump(t, m, "not sent: there is no agent")
	require.Equal(t, "hi", m.input.Value())
	require.Empty(t, m.open)
}

func TestChatKeys(t *testing.T) {
	m := chatAt(t, t.TempDir(), queue.Turn{ID: "a", Input: "older", Output: "o", Status: queue.Completed}, queue.Turn{ID: "b", Input: "newer\nof two", Status: queue.Failed, Error: "no luck"})
	require.Contains(t, shown(m), "› older")
	require.Contains(t, shown(m), "failed: no luck")
	require.Contains(t, shown(m), "Try: gateway turns retry b")
	press(m, "a", "alt+enter", "b", "ctrl+j", "c")
	require.Equal(t, "a\nb\nc", m.input.Value())
	press(m, "up", "up") // within the input
	require.Equal(t, "a\nb\nc", m.input.Value())
	press(m, "up")
	require.Equal(t, "newer\nof two", m.input.Value())
	press(m, "up", "up")
	require.Equal(t, "older", m.input.Value())
	press(m, "down", "down", "down")
	require.Equal(t, "a\nb\nc", m.input.Value(), "what was being written is kept")
	_, cmd := press(m, "ctrl+d")
	if cmd != nil {
		require.NotEqual(t, tea.QuitMsg{}, cmd(), "only on an empty input")
	}
	press(m, "esc")
	require.Contains(t, shown(m), "no turn is running")
	m.input.Reset()
	_, cmd = press(m, "enter")
	require.Nil(t, cmd)
	require.Empty(t, m.open)
	_, cmd = press(m, "ctrl+d")
	require.Equal(t, tea.QuitMsg{}, cmd())
	_, cmd = press(m, "x", "ctrl+c")
	require.Equal(t, tea.QuitMsg{}, cmd())
}

func TestChatQueuesMessagesInOrderAndCancelsTheFirst(t *testing.T) {
	var asked clienttest.Recorder
	dir, _ := clienttest.Serve(t, asked.Of(func(r *http.Request) string { return r.Method + " " + r.URL.Path }, func(http.ResponseWriter, *http.Request) { <-t.Context().Done() }))
	m := chatAt(t, dir)
	press(m, "1", "enter", "2", "enter")
	require.Contains(t, shown(m), "waits: 2")
	require.Contains(t, m.farewell(), "the gateway has not acknowledged: 1")
	require.Contains(t, m.farewell(), "--key chat-")
	press(m, "esc")
	require.True(t, m.open[0].unwanted, "there is nothing to cancel yet")
	m.Update(fromGateway{id: "t1", key: m.open[0].key, accepted: true})
	m.Update(fromGateway{id: "t2", key: m.open[1].key, accepted: true})
	require.Contains(t, m.farewell(), "the turn continues")
	m.Update(fromGateway{id: "t1", status: "cancelled"})
	require.Contains(t, shown(m), "cancelled\n\n› 2")
	m.Update(fromGateway{id: "t2", away: true})
	require.Contains(t, shown(m), "the gateway does not answer")
	m.Update(fromGateway{id: "t2", status: "failed", why: "no"})
	require.Empty(t, m.open)
	require.Eventually(t, func() bool { return slices.Contains(asked.Asked(), "POST /v1/turns/t1/cancel") }, time.Minute, time.Millisecond)
}

func TestTextOfAnAgentCannotMoveTheCursor(t *testing.T) {
	m := chatAt(t, t.TempDir())
	for _, evil := range []string{
		"\x1b[2Jcleared", "\x1b]0;title\acleared", "&#27;[2Jcleared", "&#x1b;]52;c;AAAA&#7;cleared", "`&#27;[2J`cleared", "\u009b2Jcleared",
		"[cleared](http://x/&#27;]0;t&#7;)", "\x1b\x1b[0m[2Jcleared", "a\rcleared", "\u202ecleared", "\x1b[\x1b[0m2Jcleared", "&#155;2Jcleared",
	} {
		for _, text := range []string{m.markdown(evil), m.wrap(evil), m.question(evil)(), strings.Join(m.streaming(&exchange{text: evil}, 10), "\n"), oneLine(evil, 60)} {
			plain := colour.ReplaceAllString(text, "")
			require.NotRegexp(t, "[\x00-\x09\x0b-\x1f\x7f\u0080-\u009f\u202e]", plain, "%q", evil)
			require.Contains(t, plain, "cleared", "%q", evil)
		}
	}
}

var colour = regexp.MustCompile(`\x1b\[[0-9;:]*m`)

func TestMarkdownIsRendered(t *testing.T) {
	m := chatAt(t, t.TempDir())
	got := ansi.Strip(m.markdown("# Head\n\n*soft* **strong** `a &amp; b` &amp; [name](http://example.org)\nsecond\\_line\n\n" +
		"1. one\n2. two\n   - deep\n\n> said\n\n```go\nx := 1\n\ty()\n```\n\n---\n<b>raw</b> <http://x>"))
	require.Equal(t, "Head\n\nsoft strong a &amp; b & name (http://example.org)\nsecond_line\n\n"+
		"1. one\n2. two\n   • deep\n\n│ said\n\n  x := 1\n      y()\n\n"+strings.Repeat("─", 40)+"\n\n<b>raw</b> http://x", got)
	for line := range strings.SplitSeq(m.markdown(strings.Repeat("> > - ", 40)+strings.Repeat("word ", 200)), "\n") {
		require.LessOrEqual(t, ansi.StringWidth(line), 200)
	}
}

func TestChatFitsTheTerminal(t *testing.T) {
	m := chatAt(t, t.TempDir(), queue.Turn{ID: "a", Input: strings.Repeat("語", 300), Output: strings.Repeat("word ", 400), Status: queue.Completed},
		queue.Turn{ID: "b", Input: "runs", Status: queue.Running})
	m.Update(fromGateway{id: "b", delta: strings.Repeat("long ", 2000)})
	for _, size := range [][2]int{{80, 24}, {30, 8}, {200, 60}, {12, 3}} {
		m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		lines := m.screen()
		require.LessOrEqual(t, len(lines), size[1])
		for _, line := range lines {
			require.LessOrEqual(t, ansi.StringWidth(line), size[0], "%q", line)
		}
	}
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	m.key(tea.KeyPressMsg{Code: tea.KeyPgUp})
	before := shown(m)
	m.Update(fromGateway{id: "b", status: "completed"})
	require.Contains(t, before, "PgDn")
	m.key(tea.KeyPressMsg{Code: tea.KeyPgDown})
}
