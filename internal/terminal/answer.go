package terminal

import (
	"fmt"
	"io"
	"strings"

	"gateway/internal/client"
)

// Answer prints the deltas of a response. The text of an interrupted attempt cannot be unprinted. The next attempt prints
// nothing while its text is the same, so that a script reads the answer once. When the text differs, Answer prints a note
// and starts over.
type Answer struct {
	out, notes io.Writer
	quiet      bool
	void       string // printed by interrupted attempts, and not yet repeated by this attempt
	text       string // printed or repeated by the latest attempt
	midLine    bool
}

// NewAnswer returns an Answer that prints text to out and notes to notes; with quiet it prints nothing.
func NewAnswer(out, notes io.Writer, quiet bool) *Answer {
	return &Answer{out: out, notes: notes, quiet: quiet}
}

// Take prints what an event adds. The caller passes each event once, in order.
func (a *Answer) Take(e client.Event) error {
	switch {
	case e.Kind == client.EventWaiting && !a.quiet:
		_, _ = fmt.Fprintln(a.notes, "gateway: the turn waits: "+e.Reason)
	case e.Kind == client.EventAttempt:
		a.void, a.text = a.text+a.void, ""
	case e.Kind == client.EventDelta:
		return a.delta(e.Delta)
	case e.Last() && a.void != "": // the answer is shorter than what was printed
		return a.startOver("")
	}
	return nil
}

// delta prints the part of an attempt's text that is not printed yet.
func (a *Answer) delta(text string) error {
	if a.quiet {
		return nil
	}
	same := min(len(text), len(a.void))
	if text[:same] != a.void[:same] {
		return a.startOver(text)
	}
	a.void, a.text = a.void[same:], a.text+text
	return a.print(text[same:])
}

// startOver prints an attempt's text from its beginning, because it differs from what was printed.
func (a *Answer) startOver(text string) error {
	if err := a.End(); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(a.notes, "gateway: the attempt was interrupted and starts again; disregard the text above")
	a.void, a.text = "", a.text+text
	return a.print(a.text)
}

func (a *Answer) print(text string) error {
	if a.quiet || text == "" {
		return nil
	}
	if _, err := io.WriteString(a.out, text); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	a.midLine = !strings.HasSuffix(text, "\n")
	return nil
}

// End prints the newline that the text lacks. It is the last call.
func (a *Answer) End() error {
	if a.midLine {
		return a.print("\n")
	}
	return nil
}
