package fsm

import (
	"errors"
	"fmt"
	"slices"
)

// Check reports everything that is wrong with a table: a cell that is blank or decided twice with an intent that its
// state can have, a row whose guard never holds, a name that is not declared, a kind that does not fit its cell, a
// deadline or outcome that moves nothing, a state that cannot be reached or that deadlines alone cannot end.
// looplab/fsm checks none of this: there a misspelt name vanishes and of two rows for one cell the last one wins.
func (t Table) Check() error {
	c := checker{
		t:       t,
		states:  make(map[State]StateSpec),
		events:  make(map[Event]EventSpec),
		effects: make(map[Effect]EffectSpec),
	}
	c.names()
	c.rows()
	if len(c.errs) == 0 { // the rest walks the table
		c.pairs = t.pairs()
		c.reachable()
		c.matrix()
	}
	if len(c.errs) == 0 { // and the rest of it needs it whole
		c.effectsFit()
		c.deadlinesFit()
		c.endsAlone()
	}
	return errors.Join(c.errs...)
}

// pair is a state with an intent that the machine can have in it.
type pair struct {
	state  State
	intent Intent
}

// pairs lists the states with the intents that rows lead to.
func (t Table) pairs() []pair {
	all := []pair{{state: t.Initial}}
	for i := 0; i < len(all); i++ {
		for _, c := range t.Cells {
			if c.State != all[i].state || !c.counts(all[i].intent) {
				continue
			}
			next := pair{c.State, c.then(all[i].intent)}
			switch c.Kind {
			case Transition:
				next.state = c.To
			case Internal:
			case Coalesced, Ignored, Postponed, Impossible:
				continue
			}
			if !slices.Contains(all, next) {
				all = append(all, next)
			}
		}
	}
	return all
}

type checker struct {
	t       Table
	states  map[State]StateSpec
	events  map[Event]EventSpec
	effects map[Effect]EffectSpec
	pairs   []pair
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
	for _, s := range []State{c.t.Initial, c.t.Serves, c.t.Final} {
		if _, ok := c.states[s]; !ok {
			c.bad("state %q is not declared", s)
		}
	}
	if _, ok := c.effects[c.t.First]; !ok {
		c.bad("effect %q is not declared", c.t.First)
	}
}

// rows holds each row to what is declared and to its kind.
func (c *checker) rows() {
	for _, cell := range c.t.Cells {
		if _, ok := c.states[cell.State]; !ok {
			c.bad("cell %s × %s: state is not declared", cell.State, cell.Event)
		}
		if _, ok := c.events[cell.Event]; !ok {
			c.bad("cell %s × %s: event is not declared", cell.State, cell.Event)
		}
		for _, i := range []Intent{cell.When, cell.Intent} {
			switch i {
			case "", IntentNone, IntentStop, IntentRestart:
			default:
				c.bad("cell %s × %s: intent %q is not declared", cell.State, cell.Event, i)
			}
		}
		if cell.Why == "" {
			c.bad("cell %s × %s does not say why", cell.State, cell.Event)
		}
		for _, code := range cell.Exits {
			if !slices.ContainsFunc(ExitCodes(), func(s ExitSpec) bool { return s.Code == code }) {
				c.bad("cell %s × %s exits with %d, which is not declared", cell.State, cell.Event, int(code))
			}
		}
		c.shape(cell)
	}
}

// matrix: with each intent that a state can have, exactly one row decides each event, and each row decides something.
func (c *checker) matrix() {
	used := make([]bool, len(c.t.Cells))
	for _, p := range c.pairs {
		for _, e := range c.t.Events {
			found := 0
			for i, cell := range c.t.Cells {
				if cell.State == p.state && cell.Event == e.Name && cell.counts(p.intent) {
					used[i] = true
					found++
				}
			}
			switch {
			case found == 0:
				c.bad("cell %s × %s is blank%s", p.state, e.Name, p.intent.with())
			case found > 1:
				c.bad("cell %s × %s is decided twice%s", p.state, e.Name, p.intent.with())
			}
		}
	}
	for i, cell := range c.t.Cells {
		known := slices.ContainsFunc(c.pairs, func(p pair) bool { return p.state == cell.State })
		if known && !used[i] {
			c.bad("cell %s × %s never counts%s", cell.State, cell.Event, cell.When.with())
		}
	}
}

func (i Intent) with() string {
	if i == "" {
		return ""
	}
	return fmt.Sprintf(" with the intent %s", i)
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
		if cell.Holds {
			c.bad("cell %s × %s holds turns on its way to another state", cell.State, cell.Event)
		}
	case Internal:
		if (cell.Intent == "" && !cell.Holds) || cell.To != "" || cell.Effect != "" || len(cell.Exits) > 0 {
			c.bad("cell %s × %s is internal: it changes the intent, or holds turns, and nothing else", cell.State, cell.Event)
		}
		if cell.Holds && !c.states[cell.State].Starts {
			c.bad("cell %s × %s holds turns in a state that starts none", cell.State, cell.Event)
		}
	case Coalesced, Ignored, Postponed, Impossible:
		if cell.To != "" || cell.Effect != "" || cell.Intent != "" || cell.Holds || len(cell.Exits) > 0 {
			c.bad("cell %s × %s is %s but changes something", cell.State, cell.Event, cell.Kind)
		}
		if cell.Kind == Coalesced && c.events[cell.Event].Class != ByRequest {
			c.bad("cell %s × %s is coalesced but nobody asks for it", cell.State, cell.Event)
		}
	default:
		c.bad("cell %s × %s has the unknown kind %q", cell.State, cell.Event, cell.Kind)
	}
}

// decided reports whether the event has a kind in a state, whatever the intent.
func (c *checker) decided(s State, e Event, k Kind) bool {
	found := false
	for _, p := range c.pairs {
		if p.state == s {
			row, ok := c.t.row(s, e, p.intent)
			if !ok || row.Kind != k {
				return false
			}
			found = true
		}
	}
	return found
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
				if !c.decided(s, o, Transition) {
					c.bad("effect %s in %s posts %s, which does not move the machine", e.Name, s, o)
				}
			}
			for _, o := range e.Reports {
				if !c.decided(s, o, Internal) {
					c.bad("effect %s in %s reports %s on its way, which is not internal", e.Name, s, o)
				}
			}
			if s == c.t.Final {
				continue
			}
			if !c.decided(s, e.Panic, Transition) {
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
			if !c.decided(s.Name, d.Event, Transition) {
				c.bad("state %s: the deadline %s does not move the machine", s.Name, d.Event)
			}
		}
	}
}

func (c *checker) reachable() {
	for _, s := range c.t.States {
		if !slices.ContainsFunc(c.pairs, func(p pair) bool { return p.state == s.Name }) {
			c.bad("state %s cannot be reached", s.Name)
		}
	}
}

// endsAlone: from every state that has a deadline, deadlines alone lead to the final state, so that no
// effect which never reports can hold the process for ever. The state that serves has none.
func (c *checker) endsAlone() {
	for _, p := range c.pairs {
		if p.state == c.t.Final || p.state == c.t.Serves {
			if len(c.states[p.state].Deadlines) > 0 {
				c.bad("state %s has a deadline and must have none", p.state)
			}
			continue
		}
		for at, steps := p, 0; at.state != c.t.Final; steps++ {
			deadlines := c.states[at.state].Deadlines
			if len(deadlines) == 0 || steps > len(c.pairs) {
				c.bad("state %s does not reach %s by deadlines alone", p.state, c.t.Final)
				break
			}
			row, _ := c.t.row(at.state, deadlines[0].Event, at.intent)
			at = pair{row.To, row.then(at.intent)}
		}
	}
}
