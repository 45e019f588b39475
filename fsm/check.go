package fsm

import (
	"errors"
	"fmt"
)

// Check reports everything that is wrong with a table: a blank or doubled cell, a name that is not
// declared, a kind that does not fit its cell, a deadline or outcome that moves nothing, a state that
// cannot be reached or that deadlines alone cannot end. looplab/fsm checks none of this: there a
// misspelt name vanishes and of two rows for one cell the last one wins.
func (t Table) Check() error {
	c := checker{
		t:       t,
		states:  make(map[State]StateSpec),
		events:  make(map[Event]EventSpec),
		effects: make(map[Effect]EffectSpec),
		cells:   make(map[key]Cell),
	}
	c.names()
	c.matrix()
	if len(c.errs) == 0 { // the rest walks the table and needs it whole
		c.effectsFit()
		c.deadlinesFit()
		c.reachable()
		c.endsAlone()
	}
	return errors.Join(c.errs...)
}

type key struct {
	state State
	event Event
}

type checker struct {
	t       Table
	states  map[State]StateSpec
	events  map[Event]EventSpec
	effects map[Effect]EffectSpec
	cells   map[key]Cell
	errs    []error
}

func (c *checker) bad(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("fsm: "+format, args...))
}

func (c *checker) names() {
	for _, s := range c.t.States {
		if _, dup := c.states[s.Name]; dup {
			c.bad("state %s is declared twice", s.Name)
		}
		c.states[s.Name] = s
	}
	for _, e := range c.t.Events {
		if _, dup := c.events[e.Name]; dup {
			c.bad("event %s is declared twice", e.Name)
		}
		c.events[e.Name] = e
	}
	for _, e := range c.t.Effects {
		if _, dup := c.effects[e.Name]; dup {
			c.bad("effect %s is declared twice", e.Name)
		}
		c.effects[e.Name] = e
	}
	for _, s := range []State{c.t.Initial, c.t.Final} {
		if _, ok := c.states[s]; !ok {
			c.bad("state %q is not declared", s)
		}
	}
	if _, ok := c.effects[c.t.First]; !ok {
		c.bad("effect %q is not declared", c.t.First)
	}
}

func (c *checker) matrix() {
	for _, cell := range c.t.Cells {
		k := key{cell.State, cell.Event}
		if _, dup := c.cells[k]; dup {
			c.bad("cell %s × %s is decided twice", cell.State, cell.Event)
		}
		c.cells[k] = cell
		if _, ok := c.states[cell.State]; !ok {
			c.bad("cell %s × %s: state is not declared", cell.State, cell.Event)
		}
		if _, ok := c.events[cell.Event]; !ok {
			c.bad("cell %s × %s: event is not declared", cell.State, cell.Event)
		}
		if cell.Why == "" {
			c.bad("cell %s × %s does not say why", cell.State, cell.Event)
		}
		c.shape(cell)
	}
	for _, s := range c.t.States {
		for _, e := range c.t.Events {
			if _, ok := c.cells[key{s.Name, e.Name}]; !ok {
				c.bad("cell %s × %s is blank", s.Name, e.Name)
			}
		}
	}
}

// shape holds a cell's fields to its kind.
func (c *checker) shape(cell Cell) {
	switch cell.Kind {
	case Transition:
		if _, ok := c.states[cell.To]; !ok {
			c.bad("cell %s × %s leads to %q, which is not declared", cell.State, cell.Event, cell.To)
		}
		if cell.To == cell.State {
			c.bad("cell %s × %s leads to itself; looplab/fsm runs no callbacks then", cell.State, cell.Event)
		}
		if _, ok := c.effects[cell.Effect]; !ok {
			c.bad("cell %s × %s sets off %q, which is not declared", cell.State, cell.Event, cell.Effect)
		}
		if cell.State == c.t.Final {
			c.bad("cell %s × %s leaves the final state", cell.State, cell.Event)
		}
	case Internal:
		if cell.Intent == "" || cell.To != "" || cell.Effect != "" {
			c.bad("cell %s × %s is internal: it changes the intent and nothing else", cell.State, cell.Event)
		}
	case Ignored, Postponed, Impossible:
		if cell.To != "" || cell.Effect != "" || cell.Intent != "" || cell.Exit != 0 {
			c.bad("cell %s × %s is %s but changes something", cell.State, cell.Event, cell.Kind)
		}
	default:
		c.bad("cell %s × %s has the unknown kind %q", cell.State, cell.Event, cell.Kind)
	}
}

// effectsFit: wherever an effect runs, each of its outcomes moves the machine, and a panic has an outcome
// that is decided there.
func (c *checker) effectsFit() {
	runsIn := map[Effect][]State{c.t.First: {c.t.Initial}}
	for _, cell := range c.t.Cells {
		if cell.Effect != "" {
			runsIn[cell.Effect] = append(runsIn[cell.Effect], cell.To)
		}
	}
	for _, e := range c.t.Effects {
		if len(runsIn[e.Name]) == 0 {
			c.bad("effect %s is never set off", e.Name)
		}
		for _, s := range runsIn[e.Name] {
			for _, o := range e.Outcomes {
				if c.cells[key{s, o}].Kind != Transition {
					c.bad("effect %s in %s posts %s, which does not move the machine", e.Name, s, o)
				}
			}
			if s == c.t.Final {
				continue
			}
			if c.cells[key{s, e.Panic}].Kind != Transition {
				c.bad("effect %s in %s: a panic posts %q, which does not move the machine", e.Name, s, e.Panic)
			}
		}
	}
}

func (c *checker) deadlinesFit() {
	for _, s := range c.t.States {
		for _, d := range s.Deadlines {
			if len(d.After) == 0 {
				c.bad("state %s: the deadline %s is at once", s.Name, d.Event)
			}
			if c.cells[key{s.Name, d.Event}].Kind != Transition {
				c.bad("state %s: the deadline %s does not move the machine", s.Name, d.Event)
			}
		}
	}
	// The owner tells the two outcomes of a close apart by the intent; that needs both cells.
	for _, cell := range c.t.Cells {
		if cell.Kind == Transition && cell.Event == ClosedForRestart && c.cells[key{cell.State, Closed}].Kind != Transition {
			c.bad("state %s knows %s but not %s", cell.State, ClosedForRestart, Closed)
		}
	}
}

func (c *checker) reachable() {
	seen := map[State]bool{c.t.Initial: true}
	for todo := []State{c.t.Initial}; len(todo) > 0; {
		s := todo[0]
		todo = todo[1:]
		for _, cell := range c.t.Cells {
			if cell.State == s && cell.Kind == Transition && !seen[cell.To] {
				seen[cell.To] = true
				todo = append(todo, cell.To)
			}
		}
	}
	for _, s := range c.t.States {
		if !seen[s.Name] {
			c.bad("state %s cannot be reached", s.Name)
		}
	}
}

// endsAlone: from every state that has a deadline, deadlines alone lead to the final state, so that no
// effect which never reports can hold the process for ever. The state that serves has none.
func (c *checker) endsAlone() {
	for _, s := range c.t.States {
		if s.Name == c.t.Final || s.Starts {
			if len(s.Deadlines) > 0 {
				c.bad("state %s has a deadline and must have none", s.Name)
			}
			continue
		}
		at, steps := s, 0
		for at.Name != c.t.Final {
			if len(at.Deadlines) == 0 || steps > len(c.t.States) {
				c.bad("state %s does not reach %s by deadlines alone", s.Name, c.t.Final)
				break
			}
			at = c.states[c.cells[key{at.Name, at.Deadlines[0].Event}].To]
			steps++
		}
	}
}
