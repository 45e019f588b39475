// Package terminal draws on a terminal: chat, top, Markdown, tables, and a line of progress. No text of an agent or a client
// can move the cursor, and no line is longer than the terminal is wide.
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

// Styles of chat and top. bubbletea removes the colours when NO_COLOR is set or the terminal has none.
var (
	strong   = lipgloss.NewStyle().Bold(true)
	faint    = lipgloss.NewStyle().Faint(true)
	selected = lipgloss.NewStyle().Reverse(true)
	good     = lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad      = lipgloss.NewStyle().Foreground(lipgloss.Red)
	notable  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
)

// Fillable reports whether in and out are a terminal whose whole screen a program can use.
func Fillable(in io.Reader, out io.Writer) bool {
	return Is(in) && Is(out) && os.Getenv("TERM") != "dumb"
}

// Is reports whether a reader or a writer is a terminal.
func Is(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is the width of the terminal w in cells; 0 when w is not a terminal.
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

// unlessLeft returns err, but nil when the user left the program.
func unlessLeft(err error) error {
	if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

// harmless makes text of agents and clients safe to show: it removes escape sequences and all else that moves the cursor or
// changes the direction of text. Lines stay, and a tab becomes four spaces.
func harmless(text string) string {
	text = strings.ReplaceAll(ansi.Strip(text), "\t", "    ")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || unicode.IsPrint(r) || r == '\u200d': // joins emoji
			return r
		case r == '\r':
			return -1
		}
		return '\ufffd'
	}, text)
}

// oneLine puts text on one line and cuts it to a width in cells.
func oneLine(text string, width int) string {
	return ansi.Truncate(strings.ReplaceAll(harmless(text), "\n", " "), max(width, 0), "…")
}

// fill pads or cuts text to a width in cells.
func fill(text string, width int) string {
	text = oneLine(text, width)
	return text + strings.Repeat(" ", max(0, width-ansi.StringWidth(text)))
}
