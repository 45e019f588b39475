package terminal

import (
	"fmt"
	"io"
	"strings"

	"gateway/internal/client"
)

// Answer prints the deltas of a response. What an interrupted attempt had printed cannot be taken back; the next attempt
// goes on behind it for as long as it says the same, so that what a script reads is the answer and nothing else. When it
// says something different, a note tells.
type Answer struct {
	out, notes io.Writer
	quiet      bool
	void       string // printed by attempts that were interrupted, of which this one has not said the same yet
	text       string // printed, as far as it is of the latest attempt
	midLine    bool
}

// NewAnswer prints the answer to out, and to notes what is no part of it. A quiet one prints nothing.
func NewAnswer(out, notes io.Writer, quiet bool) *Answer {
	return &Answer{out: out, notes: notes, quiet: quiet}
}

// Take prints what an event adds. Events come in their order, each once.
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

// delta prints what is new of an attempt's text.
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
	_, _ = fmt.Fprintln(a.notes, "gateway: the attempt was interrupted and begins again; disregard what came before")
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

// End adds the newline that the text lacks. Nothing may come behind it.
func (a *Answer) End() error {
	if a.midLine {
		return a.print("\n")
	}
	return nil
}
