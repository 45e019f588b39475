package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"gateway/fsm"
)

// progress is a line at a terminal that says how far something has come. Elsewhere it says nothing.
type progress struct {
	w     io.Writer // nil for nowhere
	width func() int
	shown string
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return &progress{}
	}
	return &progress{w: f, width: func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width < 2 {
			return 80
		}
		return width
	}}
}

// show replaces the line.
func (p *progress) show(text string) {
	if p.w == nil || text == p.shown {
		return
	}
	p.shown = text
	_, _ = fmt.Fprint(p.w, "\r\x1b[K", ansi.Truncate(text, p.width()-1, "…"))
}

// end takes the line away.
func (p *progress) end() {
	if p.shown != "" {
		p.show("")
	}
}

// restartProgress says what a restart waits for, given the latest answer of the gateway.
func restartProgress(s snapshot, err error, now time.Time) string {
	switch {
	case err != nil:
		return "restarting: the next gateway is on its way"
	case s.State != fsm.Draining:
		return "restarting: " + string(s.State)
	case s.Turns.Running == 0:
		return "restarting: Draining, waits for the next gateway to be ready"
	}
	text := fmt.Sprintf("restarting: Draining, waits for %d running turns", s.Turns.Running)
	if s.Turns.Running == 1 {
		text = "restarting: Draining, waits for a running turn"
	}
	if left := s.Deadline.Sub(now).Round(time.Second); !s.Deadline.IsZero() && left > 0 {
		text += fmt.Sprintf(", at most %s more", left)
	}
	return text
}

// copyProgress says how much of a file has been copied, for as long as ctx lasts. wait returns once it says no more.
func copyProgress(ctx context.Context, p *progress, from, to string) (wait func()) {
	if p.w == nil {
		return func() {}
	}
	var telling sync.WaitGroup
	telling.Go(func() {
		defer p.end()
		for pause(ctx, 100*time.Millisecond) {
			whole, err := os.Stat(from)
			part, errPart := os.Stat(to)
			if err == nil && errPart == nil {
				p.show(copied(part.Size(), whole.Size()))
			}
		}
	})
	return telling.Wait
}

// copied is a share of a file. A copy has no gaps, so that it may be whole before it is as large.
func copied(part, whole int64) string {
	return fmt.Sprintf("copying: %s of %s, %d%%", humanize.IBytes(uint64(part)), humanize.IBytes(uint64(whole)), min(100, 100*part/max(whole, 1)))
}
