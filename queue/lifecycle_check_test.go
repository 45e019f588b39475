package queue

import (
	"errors"
	"fmt"
)

// check reports everything that is wrong with the table: a name that is not declared, a cell that is blank, guards of
// one cell that leave a gap or overlap, fields that do not fit the kind, a slot that is not freed or freed twice, a
// status that cannot be reached or left, and a turn that ends and moves on by itself.
func (l lifecycle) check() error {
	c := lifecycleCheck{l: l, rules: l.index(), statuses: map[Status]bool{}, occurrences: map[occurrence]bool{}}
	c.names()
	c.matrix()
	for _, r := range l.Rules {
		c.shape(r)
	}
	c.reachable()
	return errors.Join(c.errs...)
}

type lifecycleCheck struct {
	l           lifecycle
	rules       ruleIndex
	statuses    map[Status]bool
	occurrences map[occurrence]bool
	errs        []error
}

func (c *lifecycleCheck) bad(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("queue: "+format, args...))
}

func (c *lifecycleCheck) names() {
	for _, s := range c.l.Statuses {
		if c.statuses[s.Name] {
			c.bad("status %s is declared twice", s.Name.label())
		}
		c.statuses[s.Name] = true
		if s.Means == "" || s.Kept == "" {
			c.bad("status %s is not described", s.Name.label())
		}
	}
	for _, o := range c.l.Occurrences {
		if c.occurrences[o.Name] {
			c.bad("occurrence %s is declared twice", o.Name)
		}
		c.occurrences[o.Name] = true
		if o.Raised == "" {
			c.bad("occurrence %s is not described", o.Name)
		}
	}
	for _, r := range c.l.Rules {
		if !c.statuses[r.Status] || !c.occurrences[r.Occurrence] || r.Kind == transition && !c.statuses[r.To] {
			c.bad("%s names what is not declared", r)
		}
	}
}

// matrix: whatever the facts are, exactly one rule of each cell holds.
func (c *lifecycleCheck) matrix() {
	for s := range c.statuses {
		for o := range c.occurrences {
			for f := range facts(1) << len(factNames) {
				holding := 0
				for _, r := range c.rules[cell{s, o}] {
					if r.holds(f) {
						holding++
					}
				}
				if holding != 1 {
					c.bad("%s × %s: %d rules hold for the same facts, want one", s.label(), o, holding)
					break
				}
			}
		}
	}
}

// shape holds a rule's fields to its kind.
func (c *lifecycleCheck) shape(r rule) {
	changes := r.To != "" || r.Event != "" || r.Attempt != "" || r.Run || r.Slot != "" || r.Pause
	switch r.Kind {
	case transition:
		c.moves(r)
	case internal:
		if r.Event == "" || r.To != "" || r.Attempt != "" || r.Run || r.Slot != "" || r.Pause || r.Err != nil {
			c.bad("%s is internal: it writes an event and nothing else", r)
		}
	case refused:
		if changes || r.Err == nil {
			c.bad("%s is refused: it returns an error and nothing else", r)
		}
	case unaffected, impossible:
		if changes || r.Err != nil {
			c.bad("%s is %s but changes something", r, r.Kind)
		}
	default:
		c.bad("%s has the unknown kind %q", r, r.Kind)
	}
	if r.Why == "" {
		c.bad("%s does not say why", r)
	}
}

func (c *lifecycleCheck) moves(r rule) {
	if r.To == r.Status || r.Err != nil {
		c.bad("%s does not move the turn", r)
	}
	if (r.Event == "") != (r.Status == absent || r.To == absent) {
		c.bad("%s: whatever moves a turn that stays in the store writes one event", r)
	}
	if r.To.Final() && r.Event != EventType(r.To) {
		c.bad("%s: a final status has an event of its own", r)
	}
	want := slotUse("")
	switch {
	case r.To == Running:
		want = takesSlot
	case r.Status == Running:
		want = freesSlot
	}
	if r.Slot != want {
		c.bad("%s: the slot belongs to the status running", r)
	}
	if r.Run != (r.To == Running) || r.Attempt == givesBack && r.Status != Running {
		c.bad("%s: runs and attempts are counted where they begin and end", r)
	}
	if r.Pause && r.To != Queued {
		c.bad("%s: only a turn that starts again can wait for it", r)
	}
	if r.Status.Final() && r.To != absent && r.Occurrence != onRetry {
		c.bad("%s: what has ended moves on by itself", r)
	}
}

// reachable: each status is reached from absent, and left again.
func (c *lifecycleCheck) reachable() {
	seen := map[Status]bool{absent: true}
	for todo := []Status{absent}; len(todo) > 0; {
		s := todo[0]
		todo = todo[1:]
		for _, r := range c.l.Rules {
			if r.Status == s && r.Kind == transition && !seen[r.To] {
				seen[r.To] = true
				todo = append(todo, r.To)
			}
		}
	}
	left := map[Status]bool{}
	for _, r := range c.l.Rules {
		if r.Kind == transition {
			left[r.Status] = true
		}
	}
	for s := range c.statuses {
		if !seen[s] || !left[s] {
			c.bad("status %s cannot be reached or cannot be left", s.label())
		}
	}
}
