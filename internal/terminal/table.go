package terminal

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Table aligns columns.
type Table struct{ w *tabwriter.Writer }

// NewTable begins a table, with a line of headings unless there are none.
func NewTable(w io.Writer, head ...string) Table {
	t := Table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(head) > 0 {
		t.Row(head...)
	}
	return t
}

// Row adds a line.
func (t Table) Row(cells ...string) { _, _ = fmt.Fprintln(t.w, strings.Join(cells, "\t")) }

// Flush prints the table.
func (t Table) Flush() error { return t.w.Flush() }

// Age is the time since, as people read it.
func Age(t time.Time) string {
	d := max(0, time.Since(t)) // a clock may have been set back
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// FirstLine is enough of a text to recognise it. It leaves nothing in that moves a cursor or a column.
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

// PausedWord is how a list shows what is paused.
func PausedWord(paused bool) string {
	if paused {
		return "paused"
	}
	return ""
}
