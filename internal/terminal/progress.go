package terminal

import (
	"fmt"
	"io"
	"os"

	"github.com/charmbracelet/x/ansi"
)

// Progress is a line of progress on a terminal. Elsewhere it prints nothing.
type Progress struct {
	w     io.Writer // nil to print nothing
	shown string
}

// NewProgress returns a line on w. The zero value prints nothing.
func NewProgress(w io.Writer) *Progress {
	if !Is(w) || os.Getenv("TERM") == "dumb" {
		return &Progress{}
	}
	return &Progress{w: w}
}

// Visible reports whether the line is printed.
func (p *Progress) Visible() bool { return p.w != nil }

// Show replaces the line.
func (p *Progress) Show(text string) {
	if p.w == nil || text == p.shown {
		return
	}
	p.shown = text
	_, _ = fmt.Fprint(p.w, "\r\x1b[K", ansi.Truncate(text, width(p.w)-1, "…"))
}

// End clears the line.
func (p *Progress) End() {
	if p.shown != "" {
		p.Show("")
	}
}
