package terminal

import (
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"
)

const (
	// columnGap is the number of cells between two columns.
	columnGap = 2
	// columnLeast is the least width to which a column is cut, in cells.
	columnLeast = 8
)

// Table aligns columns. On a terminal a table with headings fits the width of the terminal: the widest columns are cut.
// Elsewhere, where programs read, nothing is cut.
type Table struct {
	w     io.Writer
	width int // of the terminal, in cells; 0 for no limit
	rows  [][]string
}

// NewTable begins a table, with a line of headings unless there are none.
func NewTable(w io.Writer, head ...string) *Table {
	t := &Table{w: w}
	if len(head) > 0 {
		t.width = width(w)
		t.Row(head...)
	}
	return t
}

// Row adds a row.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Flush prints the table.
func (t *Table) Flush() error {
	widths := t.widths()
	var b strings.Builder
	for _, row := range t.rows {
		for i, cell := range row {
			if t.width > 0 {
				cell = oneLine(cell, widths[i])
			}
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", max(0, widths[i]-ansi.StringWidth(cell))+columnGap))
			}
		}
		b.WriteString("\n")
	}
	t.rows = nil
	_, err := io.WriteString(t.w, b.String())
	return err
}

// widths returns the widths of the columns, cut to fit.
func (t *Table) widths() []int {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], ansi.StringWidth(cell))
		}
	}
	for t.width > 0 {
		over := columnGap*(len(widths)-1) - t.width
		widest, next := 0, 0 // the widest column, and the width of the second widest
		for i, width := range widths {
			over += width
			if width > widths[widest] {
				widest = i
			}
		}
		for i, width := range widths {
			if i != widest {
				next = max(next, width)
			}
		}
		if over <= 0 || widths[widest] <= columnLeast {
			break
		}
		widths[widest] = max(columnLeast, widths[widest]-over, min(next, widths[widest]-1))
	}
	return widths
}

// Age is the time since t, for people.
func Age(t time.Time) string {
	d := max(0, time.Since(t)) // a clock may have been set back
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// FirstLine is the first line of a text, at most 50 characters, without characters that move the cursor or a column.
func FirstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if r := []rune(s); len(r) > 50 {
		return string(r[:49]) + "…"
	}
	return s
}

// PausedWord marks a paused lane or session in a list.
func PausedWord(paused bool) string {
	if paused {
		return "paused"
	}
	return ""
}
