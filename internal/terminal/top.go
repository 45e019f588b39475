package terminal

import (
	"context"
	"io"
	"net/url"
	"slices"
	"strconv"
	"time"

	tea "charm.land/bubbletea/v2"

	"gateway/fsm"
	"gateway/internal/client"
	"gateway/queue"
	"gateway/server"
)

const (
	// topAgain is the time between two reads of the lists.
	topAgain = 500 * time.Millisecond
	// topTurns is the most of the latest turns that are shown, besides all running turns.
	topTurns = 50
	// topHops is how many of the latest changes are kept.
	topHops = 5
)

// Top shows the gateway on the terminal until the user leaves. It returns any other end as an error.
func Top(ctx context.Context, c *client.Client, in io.Reader, out io.Writer) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave() // ends the watch
	m := newTop(ctx, c)
	go m.watch()
	end, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if m, ok := end.(*top); ok && m.err != nil {
		return m.err
	}
	return unlessLeft(err)
}

// top is the model of `gateway top`. Only Update changes it.
type top struct {
	ctx context.Context //nolint:containedctx // the life of the program: commands have no other access to it
	c   *client.Client

	inbox  chan topStatus
	status server.StatusDocument
	away   bool
	hops   []client.StatusChange
	lanes  []queue.Lane
	turns  []queue.Turn // the running turns, then the latest

	at        int    // the selected line, lanes before turns
	chosen    string // its content: the lists change, and a key must not act on other content
	filter    string
	filtering bool
	cancels   *queue.Turn // awaits confirmation
	note      string
	err       error // what ended the program

	width, height int
}

func newTop(ctx context.Context, c *client.Client) *top {
	return &top{ctx: ctx, c: c, inbox: make(chan topStatus), away: true, width: 80, height: 24}
}

// Messages from the commands.
type (
	topStatus struct {
		client.Sighting
		err error
	}
	topLists struct {
		lanes []queue.Lane
		turns []queue.Turn
		err   error
		once  bool // not one of the periodic reads
	}
	topNote     string
	lookAtLists struct{}
)

func (m *top) Init() tea.Cmd { return tea.Batch(m.nextStatus, m.again) }

func (m *top) again() tea.Msg { return m.askLists() }

// watch sends reports of the gateway to the inbox, until the program ends or the gateway refuses the watch.
func (m *top) watch() {
	report := func(s topStatus) error {
		select {
		case m.inbox <- s:
			return nil
		case <-m.ctx.Done():
			return context.Cause(m.ctx)
		}
	}
	if err := m.c.Watch(m.ctx, func(seen client.Sighting) error { return report(topStatus{Sighting: seen}) }); err != nil {
		_ = report(topStatus{err: err})
	}
}

func (m *top) nextStatus() tea.Msg {
	select {
	case s := <-m.inbox:
		return s
	case <-m.ctx.Done():
		return nil
	}
}

func (m *top) askLists() topLists {
	lanes, err := m.c.Lanes(m.ctx)
	var turns []queue.Turn
	var latest client.TurnList
	if err == nil {
		turns, err = m.c.RunningTurns(m.ctx)
	}
	if err == nil {
		latest, err = m.c.Turns(m.ctx, url.Values{"limit": {strconv.Itoa(topTurns)}})
	}
	runs := make(map[string]bool)
	for _, t := range turns {
		runs[t.ID] = true
	}
	for _, t := range latest.Turns {
		if !runs[t.ID] && t.Status != queue.Running {
			turns = append(turns, t)
		}
	}
	return topLists{lanes: lanes.Lanes, turns: turns, err: err}
}

func (m *top) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case lookAtLists:
		return m, m.again
	case topNote:
		m.note = string(msg)
		return m, func() tea.Msg {
			lists := m.askLists()
			lists.once = true
			return lists
		}
	case topStatus:
		if msg.err != nil {
			if m.ctx.Err() == nil {
				m.err = msg.err
			}
			return m, tea.Quit
		}
		m.show(msg.Sighting)
		return m, m.nextStatus
	case topLists:
		if msg.err == nil {
			m.lanes, m.turns = msg.lanes, msg.turns
			m.keepChosen()
		}
		if msg.once {
			return m, nil
		}
		return m, tea.Tick(topAgain, func(time.Time) tea.Msg { return lookAtLists{} })
	}
	return m, nil
}

func (m *top) show(seen client.Sighting) {
	m.away = seen.Status == nil
	if !m.away {
		m.status = *seen.Status
	}
	for _, change := range seen.Changes {
		if n := len(m.hops); n == 0 || m.hops[n-1].State != change.State || (change.Event != "" && change.Event != fsm.Prepared) {
			m.hops = append(m.hops, change)
		}
	}
	m.hops = m.hops[max(0, len(m.hops)-topHops):]
}

// key acts on a key and returns the next command.
func (m *top) key(k tea.KeyPressMsg) tea.Cmd {
	name := k.String()
	switch {
	case name == "ctrl+c":
		return tea.Quit
	case m.cancels != nil:
		t := *m.cancels
		m.cancels = nil
		if name == "y" {
			return m.cancel(t)
		}
		m.note = "turn " + t.ID + " continues"
		return nil
	case m.filtering:
		m.edit(name, k.Text)
		return nil
	}
	m.note = ""
	switch name {
	case "q", "ctrl+d":
		return tea.Quit
	case "up", "k":
		m.at--
	case "down", "j":
		m.at++
	case "pgup":
		m.at -= 10
	case "pgdown":
		m.at += 10
	case "home", "g":
		m.at = 0
	case "end", "G":
		m.at = 1 << 30
	case "/":
		m.filtering = true
	case "esc":
		m.filter = ""
		m.keepChosen()
	case "p":
		return m.pauseLane()
	case "c":
		m.askCancel()
	}
	m.keepInside()
	return nil
}

// edit applies a key to the filter.
func (m *top) edit(name, text string) {
	switch name {
	case "enter":
		m.filtering = false
	case "esc":
		m.filtering, m.filter = false, ""
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	default:
		m.filter += text
	}
	m.keepChosen()
}

// keepInside moves the selection to an existing line and records its content.
func (m *top) keepInside() {
	names := m.names()
	m.at = max(0, min(m.at, len(names)-1))
	m.chosen = ""
	if len(names) > 0 {
		m.chosen = names[m.at]
	}
}

// keepChosen moves the selection to where its content is now.
func (m *top) keepChosen() {
	if at := slices.Index(m.names(), m.chosen); at >= 0 {
		m.at = at
	}
	m.keepInside()
}

// names are the identities of the lines.
func (m *top) names() (names []string) {
	lanes, turns := m.shown()
	for _, l := range lanes {
		names = append(names, "lane "+l.Name)
	}
	for _, t := range turns {
		names = append(names, "turn "+t.ID)
	}
	return names
}

func (m *top) pauseLane() tea.Cmd {
	lanes, _ := m.shown()
	if m.at >= len(lanes) {
		m.note = "p pauses a lane: select a lane"
		return nil
	}
	l := lanes[m.at]
	return func() tea.Msg {
		_, err := m.c.PauseLane(m.ctx, l.Name, !l.Paused)
		switch {
		case err != nil:
			return topNote(err.Error())
		case l.Paused:
			return topNote("lane " + l.Name + " starts turns again")
		}
		return topNote("lane " + l.Name + " is paused: running turns continue, queued turns wait")
	}
}

func (m *top) askCancel() {
	lanes, turns := m.shown()
	switch at := m.at - len(lanes); {
	case at < 0 || at >= len(turns):
		m.note = "c cancels a turn: select a turn"
	case turns[at].Status.Final():
		m.note = "turn " + turns[at].ID + " has ended"
	default:
		m.cancels = &turns[at]
	}
}

func (m *top) cancel(t queue.Turn) tea.Cmd {
	return func() tea.Msg {
		if _, err := m.c.CancelTurn(m.ctx, t.ID); err != nil {
			return topNote(err.Error())
		}
		return topNote("turn " + t.ID + " is cancelled")
	}
}
