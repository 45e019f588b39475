package terminal

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"gateway/fsm"
	"gateway/queue"
)

// topFrame is the number of lines that are neither lanes nor turns.
const topFrame = 8

// shown returns the lanes and turns that pass the filter.
func (m *top) shown() (lanes []queue.Lane, turns []queue.Turn) {
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(t), strings.ToLower(m.filter)) })
	}
	for _, l := range m.lanes {
		if has(l.Name) {
			lanes = append(lanes, l)
		}
	}
	for _, t := range m.turns {
		if has(t.ID, t.Session, t.Agent, t.Lane, string(t.Status), t.Input) {
			turns = append(turns, t)
		}
	}
	return lanes, turns
}

func (m *top) View() tea.View {
	v := tea.NewView(strings.Join(m.lines(), "\n"))
	v.AltScreen = true
	return v
}

// lines returns as many lines as the terminal has, each at most as long as it is wide.
func (m *top) lines() []string {
	lanes, turns := m.shown()
	room := max(2, m.height-topFrame)
	forLanes := min(len(lanes), max(1, room/2))
	forTurns := max(1, room-forLanes)
	out := []string{m.head(), m.counts(), m.passed(), ""}
	out = append(out, strong.Render(fill(laneRow("LANE", "RUNNING", "QUEUED", "OLDEST", "DONE", "FAILED", ""), m.width)))
	from := window(m.at, len(lanes), forLanes)
	for i := from; i < min(from+forLanes, len(lanes)); i++ {
		out = append(out, m.mark(i, laneLine(lanes[i])))
	}
	out = append(out, "", strong.Render(fill(m.turnRow("TURN", "SESSION", "AGENT", "STATUS", "AGE", "INPUT"), m.width)))
	from = window(m.at-len(lanes), len(turns), forTurns)
	for i := from; i < min(from+forTurns, len(turns)); i++ {
		t := turns[i]
		out = append(out, m.mark(len(lanes)+i, m.turnRow(t.ID, t.Session, t.Agent, string(t.Status), Age(t.CreatedAt), t.Input)))
	}
	for len(out) < m.height-1 {
		out = append(out, "")
	}
	return append(out[:max(0, min(len(out), m.height-1))], m.foot())
}

// window is the first of n lines to show so that the selected line is visible.
func window(at, n, room int) int { return max(0, min(at-room+1, n-room)) }

func (m *top) mark(line int, text string) string {
	text = fill(text, m.width)
	if line == m.at {
		return selected.Render(text)
	}
	return text
}

func (m *top) head() string {
	state, style := string(m.status.State), notable
	switch {
	case m.away && state == "":
		state = "looking for the gateway"
	case m.away:
		state, style = "does not answer; last seen "+state, bad
	case m.status.State == fsm.Running:
		style = good
	}
	text := "  " + m.c.Name()
	if s := m.status; s.BootID != "" && !m.away {
		text = fmt.Sprintf("  for %s  pid %d  generation %d  %s  %s", Age(s.Since), s.PID, s.Generation, s.Address, s.Version)
	}
	return strong.Render("gateway ") + style.Render(state) + oneLine(text, m.width-8-lipgloss.Width(state))
}

func (m *top) counts() string {
	s := m.status
	text := fmt.Sprintf("%d running, %d queued", s.Turns.Running, s.Turns.Queued)
	if s.Turns.Stuck > 0 {
		text += fmt.Sprintf(", %d stuck", s.Turns.Stuck)
	}
	if s.State == fsm.Draining && !s.Deadline.IsZero() {
		text += fmt.Sprintf("; waits at most %s more", max(0, time.Until(s.Deadline)).Round(time.Second))
	}
	return oneLine(text, m.width)
}

// passed shows the latest states in order.
func (m *top) passed() string {
	var names []string
	when := ""
	for _, h := range m.hops {
		names = append(names, h.State)
		when = h.Time.Local().Format(time.TimeOnly)
	}
	if len(names) < 2 {
		return ""
	}
	text := strings.Join(names, " → ") + " at " + when
	for len(names) > 1 && lipgloss.Width(text) > m.width { // the newest states stay
		names = names[1:]
		text = "… → " + strings.Join(names, " → ") + " at " + when
	}
	return faint.Render(oneLine(text, m.width))
}

func laneRow(name, running, queued, oldest, done, failed, paused string) string {
	return fmt.Sprintf("%s %8s %8s %9s %8s %8s  %s", fill(name, 16), running, queued, oldest, done, failed, paused)
}

func laneLine(l queue.Lane) string {
	oldest := "–"
	if l.OldestQueuedAt != nil {
		oldest = Age(*l.OldestQueuedAt)
	}
	return laneRow(l.Name, fmt.Sprintf("%d/%d", l.Running, l.Concurrency), strconv.Itoa(l.Queued), oldest,
		strconv.Itoa(int(l.Ended.Completed)), strconv.Itoa(int(l.Ended.Failed)), PausedWord(l.Paused))
}

// turnRow is a row of a turn; the input gets the rest of the line.
func (m *top) turnRow(id, session, agent, status, age, input string) string {
	return fill(id, 20) + " " + fill(session, 12) + " " + fill(agent, 8) + " " + fill(status, 9) + " " + fill(age, 7) + " " + oneLine(input, max(8, m.width-61))
}

func (m *top) foot() string {
	switch {
	case m.cancels != nil:
		return notable.Render(oneLine("cancel turn "+m.cancels.ID+"? y for yes, any other key for no", m.width))
	case m.filtering:
		return oneLine("/"+m.filter+"▏ enter keeps the filter, esc ends it", m.width)
	case m.note != "":
		return notable.Render(oneLine(m.note, m.width))
	case m.filter != "":
		return oneLine("only lines with "+strconv.Quote(m.filter)+"; esc shows all", m.width)
	}
	return faint.Render(oneLine("↑↓ select · p pause or resume the lane · c cancel the turn · / filter · q quit", m.width))
}
