// Package terminal is what draws on a terminal: chat, top, Markdown, tables, and a line of progress. Nothing that an agent
// or a client wrote moves the cursor, and no line is longer than the terminal is wide.
package terminal

import (
	"errors"
	"io"
	"os"
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"
)

// Styles of what fills the terminal. bubbletea takes the colours away where NO_COLOR says so, or the terminal has none.
var (
	strong   = lipgloss.NewStyle().Bold(true)
	faint    = lipgloss.NewStyle().Faint(true)
	selected = lipgloss.NewStyle().Reverse(true)
	good     = lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad      = lipgloss.NewStyle().Foreground(lipgloss.Red)
	notable  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
)

// Fillable reports whether the two are a terminal whose whole screen a program may fill.
func Fillable(in io.Reader, out io.Writer) bool {
	return Is(in) && Is(out) && os.Getenv("TERM") != "dumb"
}

// Is reports whether a reader or a writer is a terminal.
func Is(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is how many cells fit into a line of the terminal that w is; 0 when it is none.
func width(w any) int {
	if !Is(w) {
		return 0
	}
	cells, _, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil || cells < 2 {
		return 80
	}
	return cells
}

// unlessLeft is the error of a program that filled the terminal, unless it only was left.
func unlessLeft(err error) error {
	if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

// harmless makes text of agents and clients fit to be shown: no escape sequence and nothing else that moves the cursor
// or turns the direction of what follows. Lines and tabs stay.
func harmless(text string) string {
	text = strings.ReplaceAll(ansi.Strip(text), "\t", "    ")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || unicode.IsPrint(r) || r == '\u200d': // which joins emoji
			return r
		case r == '\r':
			return -1
		}
		return '\ufffd'
	}, text)
}

// oneLine is text in one line, cut to a width.
func oneLine(text string, width int) string {
	return ansi.Truncate(strings.ReplaceAll(harmless(text), "\n", " "), max(width, 0), "…")
}

// fill pads or cuts text to a width in cells.
func fill(text string, width int) string {
	text = oneLine(text, width)
	return text + strings.Repeat(" ", max(0, width-ansi.StringWidth(text)))
}
