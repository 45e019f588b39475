package carry

import (
	"errors"
	"fmt"
	"slices"
)

// Check reports everything that is wrong with the table: a blank or doubled cell, a guard without its other half, a row
// that does not fit its kind, a phase that cannot be reached or that nothing ends.
func (t Table) Check() error {
	c := checker{t: t, cells: make(map[place][]Cell)}
	c.names()
	c.matrix()
	if len(c.errs) == 0 { // the rest walks the table and needs it whole
		c.reachable()
		c.ends()
	}
	return errors.Join(c.errs...)
}

type place struct {
	phase      Phase
	occurrence Occurrence
}

type checker struct {
	t     Table
	cells map[place][]Cell
	errs  []error
}

func (c *checker) bad(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("carry: "+format, args...))
}

func (c *checker) names() {
	for i, p := range c.t.Phases {
		if int(p.Phase) != i {
			c.bad("phase %s stands at place %d", p.Phase, i)
		}
		if p.Means == "" {
			c.bad("phase %s does not say what it means", p.Phase)
		}
	}
	for i, o := range c.t.Occurrences {
		if int(o.Occurrence) != i {
			c.bad("occurrence %s stands at place %d", o.Occurrence, i)
		}
		if o.Raised == "" || o.Means == "" {
			c.bad("occurrence %s does not say who raises it, or what it means", o.Occurrence)
		}
	}
	if len(c.t.Phases) != phases || len(c.t.Occurrences) != occurrences {
		c.bad("%d phases and %d occurrences are described, of %d and %d", len(c.t.Phases), len(c.t.Occurrences), phases, occurrences)
	}
}

func (c *checker) matrix() {
	for _, cell := range c.t.Cells {
		at := place{cell.Phase, cell.Occurrence}
		c.cells[at] = append(c.cells[at], cell)
		c.shape(cell)
	}
	for p := range Phase(phases) {
		for o := range Occurrence(occurrences) {
			switch rows := c.cells[place{p, o}]; {
			case len(rows) == 0:
				c.bad("cell %s × %s is blank", p, o)
			case len(rows) == 1 && rows[0].When != Always:
				c.bad("cell %s × %s is decided %q only", p, o, rows[0].When)
			case len(rows) == 2 && (rows[0].When == Always || rows[0].When == Otherwise || rows[1].When != Otherwise), len(rows) > 2:
				c.bad("cell %s × %s is decided more than once", p, o)
			}
		}
	}
}

// shape holds a row's fields to its kind.
func (c *checker) shape(cell Cell) {
	at := fmt.Sprintf("cell %s × %s", cell.Phase, cell.Occurrence)
	if cell.Why == "" {
		c.bad("%s does not say why", at)
	}
	for _, a := range cell.Do {
		if !slices.Contains(Actions, a) {
			c.bad("%s does %q, which is not declared", at, a)
		}
	}
	changes := len(cell.Do) > 0 || cell.Sets != 0 || cell.Clears != 0
	switch cell.Kind {
	case Transition:
		if cell.To == cell.Phase {
			c.bad("%s leads to itself", at)
		}
		if final(cell.Phase) {
			c.bad("%s leaves a final phase", at)
		}
		if (cell.To == Carried) != slices.Contains(cell.Do, Carry) || (cell.To == Closed) != slices.Contains(cell.Do, CloseSocket) {
			c.bad("%s: a connection becomes carried by being carried and closed by being closed, by nothing else", at)
		}
	case Internal:
		if !changes || cell.To != cell.Phase {
			c.bad("%s is internal: it does something, and stays", at)
		}
		if slices.Contains(cell.Do, Carry) || slices.Contains(cell.Do, CloseSocket) {
			c.bad("%s ends the connection and stays", at)
		}
	case Ignored, Impossible:
		if changes || cell.To != cell.Phase {
			c.bad("%s is %s but changes something", at, cell.Kind)
		}
	default:
		c.bad("%s has the unknown kind %q", at, cell.Kind)
	}
	c.asked(at, cell)
}

// asked: what is asked of the connection is done or refused, in every row.
func (c *checker) asked(at string, cell Cell) {
	if cell.Kind == Impossible {
		return
	}
	n := 0
	for _, a := range []Action{Pass, Refuse, Stretch} {
		if slices.Contains(cell.Do, a) {
			n++
		}
	}
	want := 0
	if cell.Occurrence == Write || cell.Occurrence == Seal || cell.Occurrence == Deadline {
		want = 1
	}
	if n != want {
		c.bad("%s: %d answers to what is asked, want %d", at, n, want)
	}
}

func final(p Phase) bool { return p == Carried || p == Closed }

func (c *checker) reachable() {
	seen := map[Phase]bool{New: true, Arrived: true}
	for again := true; again; {
		again = false
		for _, cell := range c.t.Cells {
			if seen[cell.Phase] && !seen[cell.To] {
				seen[cell.To], again = true, true
			}
		}
	}
	for p := range Phase(phases) {
		if !seen[p] {
			c.bad("phase %s cannot be reached", p)
		}
	}
}

// ends: whatever a connection does, a close ends it.
func (c *checker) ends() {
	for p := range Phase(phases) {
		for _, cell := range c.cells[place{p, Close}] {
			if !final(p) && !final(cell.To) {
				c.bad("phase %s: a close does not end the connection", p)
			}
		}
	}
}
