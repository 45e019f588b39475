package terminal

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/stretchr/testify/require"

	"gateway/internal/client"
	"gateway/internal/client/clienttest"
	"gateway/queue"
	"gateway/server"
)

// press sends keys to a model; each is a character or the name of a key.
func press(m tea.Model, keys ...string) (tea.Model, tea.Cmd) {
	var cmd tea.Cmd
	for _, name := range keys {
		k := tea.Key{Text: name}
		switch code, ok := map[string]rune{"up": tea.KeyUp, "down": tea.KeyDown, "enter": tea.KeyEnter, "esc": tea.KeyEscape, "backspace": tea.KeyBackspace, "end": tea.KeyEnd}[name]; {
		case ok:
			k = tea.Key{Code: code}
		case strings.HasPrefix(name, "ctrl+"):
			k = tea.Key{Code: rune(name[5]), Mod: tea.ModCtrl}
		case name == "alt+enter":
			k = tea.Key{Code: tea.KeyEnter, Mod: tea.ModAlt}
		default:
			k.Code = []rune(name)[0]
		}
		m, cmd = m.Update(tea.KeyPressMsg(k))
	}
	return m, cmd
}

func shownTop(t *testing.T, c *client.Client) *top {
	t.Helper()
	m := newTop(t.Context(), c)
	s := server.StatusDocument{State: "Running", BootID: "b1", Hop: 2, Since: time.Now(), Turns: server.TurnCounts{Running: 1, Queued: 3}}
	m.Update(topStatus{Sighting: client.Sighting{Changes: []client.StatusChange{{State: "Running"}}, Status: &s}})
	turns := []queue.Turn{
		{ID: "t1", Session: "desk", Agent: "echo", Status: queue.Running, Input: "\x1b[2Jred\nsecond \u202eline", CreatedAt: time.Now()},
		{ID: "t2", Session: "team", Agent: "echo", Status: queue.Completed, Input: strings.Repeat("語", 100), CreatedAt: time.Now()},
	}
	m.Update(topLists{[]queue.Lane{{Name: "cron", Concurrency: 1, Paused: true}, {Name: "main", Concurrency: 4, Running: 1, Queued: 3}}, turns, nil, true})
	return m
}

func TestTopFitsTheTerminalAndTextOfAnAgentCannotMoveTheCursor(t *testing.T) {
	m := shownTop(t, client.In(t.TempDir()))
	for _, size := range [][2]int{{80, 24}, {120, 50}, {40, 12}, {20, 5}, {1, 1}} {
		m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		lines := m.lines()
		require.LessOrEqual(t, len(lines), size[1])
		for _, line := range lines {
			require.LessOrEqual(t, ansi.StringWidth(line), size[0], "%q", line)
		}
	}
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	text := strings.Join(m.lines(), "\n")
	require.NotContains(t, text, "\x1b[2J")
	require.NotContains(t, text, "\u202e")
	require.Contains(t, text, "red second")
	require.Contains(t, text, "1 running, 3 queued")
	require.Contains(t, text, "paused")
}

func TestTopKeepsTheSelectedLineInView(t *testing.T) {
	m := shownTop(t, client.In(t.TempDir()))
	var turns []queue.Turn
	for i := range 60 {
		turns = append(turns, queue.Turn{ID: "turn" + string(rune('A'+i)), Status: queue.Queued})
	}
	m.Update(topLists{m.lanes, turns, nil, true})
	press(m, "end")
	require.Contains(t, strings.Join(m.lines(), "\n"), turns[59].ID)
	m.Update(topLists{m.lanes, turns[:1], nil, true}) // they have ended
	require.Equal(t, 2, m.at)
}

func TestTopKeepsTheSelectionWhenTheListsChange(t *testing.T) {
	m := shownTop(t, client.In(t.TempDir()))
	press(m, "down", "down") // t1
	lane, t1, t2 := m.lanes[1], m.turns[0], m.turns[1]
	m.Update(topLists{[]queue.Lane{lane}, []queue.Turn{t2, t1}, nil, true})
	press(m, "c")
	require.Contains(t, m.foot(), "cancel turn t1?")
}

func TestTopConfirmsACancelAndPausesLanesImmediately(t *testing.T) {
	var asked clienttest.Recorder
	answer := asked.Of(func(r *http.Request) string { return r.Method + " " + r.URL.Path }, clienttest.Document(http.StatusOK, map[string]any{}))
	dir, _ := clienttest.Serve(t, answer)
	m := shownTop(t, client.In(dir))

	_, cmd := press(m, "c")
	require.Nil(t, cmd)
	require.Contains(t, m.note, "c cancels a turn")
	_, cmd = press(m, "p")
	require.Equal(t, topNote("lane cron starts turns again"), cmd())
	_, cmd = press(m, "down", "down", "c")
	require.Nil(t, cmd, "not without an answer")
	require.Contains(t, m.foot(), "cancel turn t1?")
	_, cmd = press(m, "n")
	require.Nil(t, cmd)
	_, cmd = press(m, "c", "y")
	require.Equal(t, topNote("turn t1 is cancelled"), cmd())
	press(m, "down", "c")
	require.Contains(t, m.note, "has ended")
	_, cmd = press(m, "q")
	require.Equal(t, tea.QuitMsg{}, cmd())
	require.Equal(t, []string{"PATCH /v1/lanes/cron", "POST /v1/turns/t1/cancel"}, asked.Asked())
}

func TestTopFiltersAndShowsTheStatesOfARestart(t *testing.T) {
	m := shownTop(t, client.In(t.TempDir()))
	press(m, "/", "T", "e", "a", "x", "backspace", "m", "enter")
	lanes, turns := m.shown()
	require.Empty(t, lanes)
	require.Len(t, turns, 1)
	press(m, "esc")
	lanes, _ = m.shown()
	require.Len(t, lanes, 2)

	for _, state := range []string{"Draining", "ShuttingDown", "Running"} {
		m.Update(topStatus{Sighting: client.Sighting{Changes: []client.StatusChange{{State: state, Event: "e"}}}})
	}
	require.Contains(t, m.head(), "does not answer")
	require.Contains(t, m.passed(), "Running → Draining → ShuttingDown → Running")
	_, cmd := m.Update(topStatus{err: errors.New("no")})
	require.Equal(t, tea.QuitMsg{}, cmd())
	require.Error(t, m.err)
	_, err := json.Marshal(m.hops)
	require.NoError(t, err)
}
