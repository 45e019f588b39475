package queue

import (
	"fmt"
	"strings"
)

// turnRules is the table as the store and the attempts look it up. It never changes.
var turnRules = turnLifecycle().index()

type cell struct {
	status     Status
	occurrence occurrence
}

type ruleIndex map[cell][]rule

func (l lifecycle) index() ruleIndex {
	rules := make(ruleIndex)
	for _, r := range l.Rules {
		c := cell{r.Status, r.Occurrence}
		rules[c] = append(rules[c], r)
	}
	return rules
}

// of returns the rule for what happens to a turn, given the facts.
func (rules ruleIndex) of(s Status, on occurrence, f facts) rule {
	for _, r := range rules[cell{s, on}] {
		if r.holds(f) {
			return r
		}
	}
	return rule{Status: s, Occurrence: on, Kind: impossible} // the table has no such cell; a test sees to that
}

// where is the condition of SQL under which the occurrence changes a turn.
func (rules ruleIndex) where(on occurrence) string {
	var from []string
	for _, s := range []Status{Queued, Running, Completed, Failed, Cancelled} {
		for _, r := range rules[cell{s, on}] {
			if r.Kind == transition || r.Kind == internal {
				from = append(from, "'"+string(s)+"'")
				break
			}
		}
	}
	return "status IN (" + strings.Join(from, ", ") + ")"
}

func (r rule) holds(f facts) bool { return f&r.When == r.When && f&r.Unless == 0 }

// set is what the rule changes of a turn, as SQL.
func (r rule) set() string {
	set := fmt.Sprintf("status = '%s'", r.To)
	switch r.Attempt {
	case countsAttempt:
		set += ", attempt = attempt + 1"
	case givesBack:
		set += ", attempt = attempt - 1"
	case countsAnew:
		set += ", attempt = 0"
	}
	if r.Run {
		set += ", runs = runs + 1"
	}
	return set
}

// apply is set for a turn in memory.
func (r rule) apply(t *Turn) {
	t.Status = r.To
	switch r.Attempt {
	case countsAttempt:
		t.Attempt++
	case givesBack:
		t.Attempt--
	case countsAnew:
		t.Attempt = 0
	}
	if r.Run {
		t.Runs++
	}
}

// facts are those of a turn that decide whether it runs again.
func (t *Turn) facts(maxAttempts int) facts {
	var f facts
	if t.OnInterrupt != FailTurn {
		f |= mayRerun
	}
	if t.Attempt < maxAttempts {
		f |= attemptsLeft
	}
	return f
}

// conflict is the refusal of what the turn's status does not allow.
func conflict(s Status) error { return fmt.Errorf("%w: the turn is %s", ErrConflict, s) }

// String names the rule in errors: UML's transition label, with its guard in brackets.
func (r rule) String() string {
	s := r.Status.label() + " × " + string(r.Occurrence)
	if guard := r.guard(); guard != "" {
		s += " [" + guard + "]"
	}
	return s
}

// guard is what the rule asks for, in words.
func (r rule) guard() string {
	var words []string
	for i, name := range factNames {
		switch bit := facts(1) << i; {
		case r.When&bit != 0:
			words = append(words, name[0])
		case r.Unless&bit != 0:
			words = append(words, name[1])
		}
	}
	return strings.Join(words, "; ")
}

// label is the status as tables and diagrams show it.
func (s Status) label() string {
	if s == absent {
		return "absent"
	}
	return string(s)
}
