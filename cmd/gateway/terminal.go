package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

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

// needTerminal refuses to fill a terminal where there is none.
func needTerminal(in io.Reader, out io.Writer, name, try string) error {
	if !isTerminal(in) || !isTerminal(out) || os.Getenv("TERM") == "dumb" {
		return usageError(fmt.Errorf("%s needs a terminal\nTry: %s", name, try))
	}
	return nil
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
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
