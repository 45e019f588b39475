package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"gateway/queue"
)

const (
	// topAgain is how often the lists are read again.
	topAgain = 500 * time.Millisecond
	// topTurns is how many of the latest turns are shown at most, beside all that run.
	topTurns = 50
	// topHops is how many of the latest changes are remembered.
	topHops = 5
)

func newTopCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "top",
		Short: "Watch the lanes and turns, and pause or cancel what needs it",
		Long: `Watch the state, the lanes, the turns that run and the latest ones. It goes on through restarts, and shows the
states as they pass.

The arrow keys, or j and k, choose a line; p pauses or resumes the lane, c cancels the turn after a question, / shows
only lanes and turns in which a text occurs, q leaves.`,
		Example: "  gateway top\n  gateway top --url https://host:18789",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needTerminal(cmd.InOrStdin(), cmd.OutOrStdout(), "top", "gateway status --watch, or gateway lanes --json"); err != nil {
				return err
			}
			c, err := o.connect()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			p := tea.NewProgram(newTop(ctx, c), tea.WithContext(ctx), tea.WithInput(cmd.InOrStdin()), tea.WithOutput(cmd.OutOrStdout()))
			end, err := p.Run()
			if m, ok := end.(*top); ok && m.err != nil {
				return m.err
			}
			if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
				return nil
			}
			return err
		},
	}
}

// top is the model of `gateway top`. Only its Update changes it.
type top struct {
	ctx context.Context //nolint:containedctx // the life of the program: commands have no other way to it
	c   *client

	observer *observer // of the command that asks, of which there is one at a time
	status   snapshot
	away     bool
	hops     []statusChange
	lanes    []queue.Lane
	turns    []queue.Turn // those that run, then the latest

	at        int    // the chosen line, lanes before turns
	chosen    string // what is in it: the lists change, and a key must not hit what has come in its place
	filter    string
	filtering bool
	cancels   *queue.Turn // asked about
	note      string
	err       error // what ended it

	width, height int
}

func newTop(ctx context.Context, c *client) *top {
	return &top{ctx: ctx, c: c, observer: &observer{}, away: true, width: 80, height: 24}
}

// What the commands bring.
type (
	topStatus struct {
		changes []statusChange
		status  snapshot
		err     error
	}
	topLists struct {
		lanes []queue.Lane
		turns []queue.Turn
		err   error
		once  bool // beside the ones that come again and again
	}
	topNote     string
	lookStatus  struct{}
	lookAtLists struct{}
)

func (m *top) Init() tea.Cmd { return tea.Batch(m.askStatus, m.again) }

func (m *top) again() tea.Msg { return m.askLists() }

func (m *top) askStatus() tea.Msg {
	changes, s, err := m.c.observe(m.ctx, m.observer)
	return topStatus{changes, s, err}
}

func (m *top) askLists() topLists {
	var lanes struct {
		Lanes []queue.Lane `json:"lanes"`
	}
	var running, latest struct {
		Turns []queue.Turn `json:"turns"`
	}
	err := m.c.call(m.ctx, http.MethodGet, "/v1/lanes", nil, &lanes, nil)
	if err == nil {
		err = m.c.call(m.ctx, http.MethodGet, "/v1/turns?status=running&limit=1000", nil, &running, nil)
	}
	if err == nil {
		err = m.c.call(m.ctx, http.MethodGet, "/v1/turns?limit="+strconv.Itoa(topTurns), nil, &latest, nil)
	}
	runs := make(map[string]bool)
	for _, t := range running.Turns {
		runs[t.ID] = true
	}
	for _, t := range latest.Turns {
		if !runs[t.ID] && t.Status != queue.Running {
			running.Turns = append(running.Turns, t)
		}
	}
	return topLists{lanes: lanes.Lanes, turns: running.Turns, err: err}
}

func (m *top) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case lookStatus:
		return m, m.askStatus
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
		m.takeStatus(msg)
		return m, tea.Tick(watchAgain, func(time.Time) tea.Msg { return lookStatus{} })
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

func (m *top) takeStatus(msg topStatus) {
	m.away = msg.status.BootID == ""
	if !m.away {
		m.status = msg.status
	}
	for _, change := range msg.changes {
		if n := len(m.hops); n == 0 || m.hops[n-1].State != change.State || change.Event != "" {
			m.hops = append(m.hops, change)
		}
	}
	m.hops = m.hops[max(0, len(m.hops)-topHops):]
}

// key acts on a key. The answer is what to do next.
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
		m.note = "turn " + t.ID + " goes on"
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

// edit changes the filter by a key.
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

// keepInside keeps the chosen line on one that is there, and remembers what is in it.
func (m *top) keepInside() {
	names := m.names()
	m.at = max(0, min(m.at, len(names)-1))
	m.chosen = ""
	if len(names) > 0 {
		m.chosen = names[m.at]
	}
}

// keepChosen moves the chosen line to where what was in it is now.
func (m *top) keepChosen() {
	if at := slices.Index(m.names(), m.chosen); at >= 0 {
		m.at = at
	}
	m.keepInside()
}

// names tell the lines apart.
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
		m.note = "p is for lanes: choose one"
		return nil
	}
	l := lanes[m.at]
	return func() tea.Msg {
		err := m.c.call(m.ctx, http.MethodPatch, "/v1/lanes/"+url.PathEscape(l.Name), map[string]bool{"paused": !l.Paused}, nil, nil)
		switch {
		case err != nil:
			return topNote(err.Error())
		case l.Paused:
			return topNote("lane " + l.Name + " starts turns again")
		}
		return topNote("lane " + l.Name + " is paused: what runs goes on, what comes waits")
	}
}

func (m *top) askCancel() {
	lanes, turns := m.shown()
	switch at := m.at - len(lanes); {
	case at < 0 || at >= len(turns):
		m.note = "c is for turns: choose one"
	case turns[at].Status.Final():
		m.note = "turn " + turns[at].ID + " has ended"
	default:
		m.cancels = &turns[at]
	}
}

func (m *top) cancel(t queue.Turn) tea.Cmd {
	return func() tea.Msg {
		if err := m.c.call(m.ctx, http.MethodPost, "/v1/turns/"+url.PathEscape(t.ID)+"/cancel", nil, nil, nil); err != nil {
			return topNote(err.Error())
		}
		return topNote("turn " + t.ID + " is cancelled")
	}
}
