package terminal

import (
	"regexp"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"gateway/internal/advice"
)

// markdownLimit is the longest answer, in bytes, that is rendered: a longer answer would delay the keys.
const markdownLimit = 256 << 10

// add appends blocks to the conversation. Each block is rendered again when the width changes.
func (m *chat) add(blocks ...func() string) {
	m.blocks = append(m.blocks, blocks...)
	before := len(m.lines)
	for _, b := range blocks {
		m.lines = append(m.lines, blockLines(b)...)
	}
	if m.up > 0 { // the lines on the screen stay
		m.up += len(m.lines) - before
	}
}

func blockLines(block func() string) []string {
	return append(strings.Split(strings.Trim(block(), "\n"), "\n"), "")
}

// render renders all blocks again.
func (m *chat) render() {
	m.lines = nil
	for _, b := range m.blocks {
		m.lines = append(m.lines, blockLines(b)...)
	}
}

// farewell is printed after the chat: the conversation, and how to continue it.
func (m *chat) farewell() string {
	text := strings.Join(m.lines, "\n") + "\n"
	if m.plain {
		text = ansi.Strip(text)
	}
	again := "gateway chat --session " + shellWord(m.line.session)
	switch unsent := m.unsent(); {
	case unsent != nil:
		return text + advice.Text("the gateway has not acknowledged: "+oneLine(unsent.input, 60),
			"gateway send --session "+shellWord(m.line.session)+" --key "+unsent.key+" with the same text, which makes no second turn") + "\n"
	case len(m.open) > 0:
		return text + "the turn continues; come back with: " + again + "\n"
	}
	return text + "come back with: " + again + "\n"
}

func (m *chat) unsent() *exchange {
	for _, x := range m.open {
		if x.id == "" {
			return x
		}
	}
	return nil
}

var bareWord = regexp.MustCompile(`^[A-Za-z0-9._@/+:-]+$`)

// shellWord quotes a word for a shell when necessary.
func shellWord(word string) string {
	if bareWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(harmless(word), "'", `'\''`) + "'"
}

func trimmed(text string) string { return strings.TrimRight(text, " \t\r\n") }

func (m *chat) wrap(text string) string {
	return ansi.Wrap(harmless(text), max(8, m.width-1), "")
}

// question renders a message.
func (m *chat) question(input string) func() string {
	return func() string {
		lines := strings.Split(ansi.Wrap(harmless(input), max(8, m.width-3), ""), "\n")
		return strong.Render("› " + strings.Join(lines, "\n  "))
	}
}

// answer renders an answer and the turn's outcome.
func (m *chat) answer(x *exchange, status, why string) func() string {
	return func() string {
		text := m.markdown(x.text)
		switch status {
		case "completed":
		case "cancelled":
			text += "\n" + notable.Render("cancelled")
		case "incomplete":
			text += "\n" + notable.Render(m.wrap("cut short: "+why))
		case "failed":
			text += "\n" + bad.Render(m.wrap("failed: "+why)) + "\n" + faint.Render("Try: gateway turns retry "+x.id)
		default:
			text += "\n" + bad.Render(m.wrap("the turn cannot be followed: "+why)) + "\n" + faint.Render("Try: gateway turns show "+x.id)
		}
		return text
	}
}

// markdown renders an answer for the terminal.
func (m *chat) markdown(text string) string {
	text = harmless(trimmed(text))
	if len(text) > markdownLimit {
		return m.wrap(text)
	}
	return renderMarkdown(text, max(8, min(m.width, 120)-2))
}

func (m *chat) View() tea.View {
	v := tea.NewView(strings.Join(m.screen(), "\n"))
	v.AltScreen = true
	return v
}

// screen is the conversation, the answer that streams, the input and a line of hints.
func (m *chat) screen() []string {
	input := strings.Split(m.input.View(), "\n")
	room := max(0, m.height-len(input)-1)
	lines := m.lines
	if len(m.open) > 0 {
		lines = append(slices.Clip(lines), m.streaming(m.open[0], room)...)
		for _, x := range m.open[1:] {
			lines = append(lines, faint.Render(oneLine("waits: "+x.input, m.width-1)))
		}
	}
	m.up = max(0, min(m.up, len(lines)-room))
	end := len(lines) - m.up
	lines = slices.Clip(lines[max(0, end-room):end])
	for len(lines) < room { // the input stays at the bottom
		lines = append(lines, "")
	}
	lines = append(append(lines, input...), m.foot())
	return lines[max(0, len(lines)-m.height):]
}

// streaming is the end of an incomplete answer.
func (m *chat) streaming(x *exchange, room int) []string {
	if x.text == "" {
		return nil
	}
	tail := x.text
	if most := 4 * max(1, room) * max(8, m.width); len(tail) > most { // more than fits, at any width of the text
		tail = strings.ToValidUTF8(tail[len(tail)-most:], "")
	}
	lines := strings.Split(m.wrap(trimmed(tail)), "\n")
	return append(lines[max(0, len(lines)-max(1, room)):], "")
}

func (m *chat) foot() string {
	var text string
	style := faint
	switch {
	case m.up > 0:
		text = "PgDn scrolls down"
	case m.away:
		text, style = "the gateway does not answer; the chat continues when it is back", notable
	case m.note != "":
		text, style = m.note, notable
	case len(m.open) == 0:
		text = "session " + m.line.session
	case m.open[0].id == "":
		text = "sending"
	case m.open[0].text == "" && m.open[0].waits != "":
		text = "waits: " + m.open[0].waits
	default:
		text = "answering; Esc cancels"
	}
	return style.Render(oneLine(text, max(1, m.width-1)))
}
