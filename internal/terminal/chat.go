package terminal

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"

	"charm.land/bubbles/v2/textarea"
	tea "charm.land/bubbletea/v2"

	"gateway/internal/client"
	"gateway/queue"
)

// chatHistory is how many turns of the session are shown at the start.
const chatHistory = 20

// Chat runs a conversation in the session on the terminal until the user leaves. The gateway chooses the agent when agent
// is empty.
func Chat(ctx context.Context, c *client.Client, session, agent string, in io.Reader, out io.Writer) error {
	latest, err := c.Turns(ctx, url.Values{"session": {session}, "limit": {strconv.Itoa(chatHistory)}})
	if err != nil {
		return err
	}
	slices.Reverse(latest.Turns)
	ctx, leave := context.WithCancel(ctx)
	defer leave() // ends all requests to the gateway
	m := newChat(chatLine{ctx: ctx, c: c, session: session, agent: agent, inbox: make(chan tea.Msg, 64)}, latest.Turns)
	m.plain = os.Getenv("NO_COLOR") != ""
	_, err = tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	_, _ = fmt.Fprint(out, m.farewell())
	return unlessLeft(err)
}

// exchange is a message and its answer.
type exchange struct {
	id       string // empty until the gateway has accepted it
	key      string // makes a repeat of the request the same turn
	input    string
	text     string // of the latest attempt
	waits    string // why it has not started
	shown    bool   // whether the message is in blocks
	unwanted bool   // cancelled before it was accepted
}

// chat is the model of `gateway chat`: the past messages and answers, the open ones, and the input. Only Update changes it.
type chat struct {
	line  chatLine
	input textarea.Model
	open  []*exchange // in the order of the session

	blocks []func() string // past messages and answers
	lines  []string        // the blocks, rendered
	up     int             // lines that the view is scrolled up

	past  []string // inputs
	at    int      // index in past; len(past) for the new input
	draft string

	away, plain   bool
	note          string
	width, height int
}

func newChat(line chatLine, turns []queue.Turn) *chat {
	m := &chat{line: line, width: 80, height: 24, input: newInput()}
	m.add(func() string {
		return faint.Render(m.wrap("session " + line.session + "; Enter sends, Alt+Enter begins a line, Esc cancels, Ctrl+C leaves"))
	})
	for _, t := range turns {
		m.past = append(m.past, t.Input)
		x := &exchange{id: t.ID, input: t.Input, text: t.Output}
		if t.Status.Final() {
			m.add(m.question(t.Input), m.answer(x, string(t.Status), t.Error))
		} else {
			m.open = append(m.open, x)
		}
	}
	m.at = len(m.past)
	m.begin()
	return m
}

func newInput() textarea.Model {
	input := textarea.New()
	input.ShowLineNumbers = false
	input.Prompt = "› "
	input.Placeholder = "a message"
	input.CharLimit = 0
	input.DynamicHeight, input.MinHeight, input.MaxHeight, input.MaxContentHeight = true, 1, 6, 100_000
	input.KeyMap.InsertNewline.SetKeys("alt+enter", "ctrl+j", "shift+enter")
	input.SetWidth(78)
	input.Focus()
	return input
}

func (m *chat) Init() tea.Cmd {
	for _, x := range m.open {
		m.line.follow(x.id)
	}
	return tea.Batch(textarea.Blink, m.line.listen)
}

func (m *chat) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.input.SetWidth(max(8, m.width-2))
		m.render()
	case tea.KeyPressMsg:
		cmd = m.key(msg)
	case fromGateway:
		m.take(msg)
		cmd = m.line.listen
	default:
		m.input, cmd = m.input.Update(msg)
	}
	return m, cmd
}

func (m *chat) key(k tea.KeyPressMsg) tea.Cmd {
	m.note = ""
	switch name := k.String(); {
	case name == "ctrl+c", name == "ctrl+d" && m.input.Value() == "":
		return tea.Quit
	case name == "enter":
		m.send()
		return nil
	case name == "esc":
		m.abort()
		return nil
	case name == "pgup":
		m.up += max(1, m.height/2)
		return nil
	case name == "pgdown":
		m.up = max(0, m.up-max(1, m.height/2))
		return nil
	case name == "up" && m.input.Line() == 0 && m.at > 0:
		m.recall(m.at - 1)
		return nil
	case name == "down" && m.input.Line() == m.input.LineCount()-1 && m.at < len(m.past):
		m.recall(m.at + 1)
		return nil
	}
	var cmd tea.Cmd
	m.input, cmd = m.input.Update(k)
	return cmd
}

// recall shows an earlier input; the new input is kept in draft.
func (m *chat) recall(at int) {
	if m.at == len(m.past) {
		m.draft = m.input.Value()
	}
	m.at = at
	if at == len(m.past) {
		m.input.SetValue(m.draft)
	} else {
		m.input.SetValue(m.past[at])
	}
	m.input.MoveToEnd()
}

func (m *chat) send() {
	text := trimmed(m.input.Value())
	if text == "" {
		return
	}
	m.input.Reset()
	m.up = 0
	m.past = append(m.past, text)
	m.at = len(m.past)
	m.open = append(m.open, &exchange{key: "chat-" + rand.Text(), input: text})
	m.begin()
	m.submitNext()
}

// submitNext submits the first message that is not accepted yet. Messages go one at a time, to stay in order.
func (m *chat) submitNext() {
	for i, x := range m.open {
		if x.id == "" {
			if i == 0 || m.open[i-1].id != "" {
				m.line.submit(x.key, x.input)
			}
			return
		}
	}
}

// abort cancels the first open turn.
func (m *chat) abort() {
	if len(m.open) == 0 {
		m.note = "no turn is running"
		return
	}
	x := m.open[0]
	m.note = "cancelling"
	if x.id == "" {
		x.unwanted = true
		return
	}
	m.line.cancel(x.id)
}

// take applies a report of the gateway.
func (m *chat) take(msg fromGateway) {
	m.away = msg.away
	i := slices.IndexFunc(m.open, func(x *exchange) bool { return x.id != "" && x.id == msg.id || x.key != "" && x.key == msg.key })
	if msg.note != "" {
		m.note = msg.note
	}
	if i < 0 {
		return
	}
	x := m.open[i]
	switch {
	case msg.accepted:
		m.accepted(i, msg.id)
	case msg.refused != "":
		m.add(func() string { return bad.Render(m.wrap("not sent: " + msg.refused)) })
		m.drop(i)
		if m.input.Value() == "" {
			m.input.SetValue(x.input)
			m.input.MoveToEnd()
		}
		m.submitNext()
	case msg.afresh:
		x.text, x.waits = "", ""
	case msg.status != "":
		m.note = ""
		if !x.shown {
			m.add(m.question(x.input))
		}
		m.add(m.answer(x, msg.status, msg.why))
		m.drop(i)
	default:
		x.text += msg.delta
		if msg.waits != "" {
			x.waits = msg.waits
		}
	}
}

func (m *chat) accepted(i int, id string) {
	x := m.open[i]
	if slices.ContainsFunc(m.open[:i], func(before *exchange) bool { return before.id == id }) {
		m.add(m.question(x.input)) // it joined a waiting turn, which answers both
		m.drop(i)
	} else {
		x.id = id
		m.line.follow(id)
		if x.unwanted {
			m.line.cancel(id)
		}
	}
	m.submitNext()
}

func (m *chat) drop(i int) {
	m.open = slices.Delete(m.open, i, i+1)
	m.begin()
}

// begin shows the message that is answered next.
func (m *chat) begin() {
	if len(m.open) > 0 && !m.open[0].shown {
		m.open[0].shown = true
		m.add(m.question(m.open[0].input))
	}
}
