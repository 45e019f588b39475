package fsm

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write what happens into testdata/stories.txt, to be reviewed as a diff")

// story is what the gateway promises, as a transcript of the running machine: what happens → the state, the effect that
// it set off, the intent, the exit code, what becomes of new turns, "starts" where queued turns start, and what becomes
// of a request or an event that does not move the machine. A dash is "nothing".
//
//	ask EVENT [DRAIN]    somebody requests it
//	report EVENT [EXIT]  the effect that runs ends so, or reports it on its way
//	raise EVENT          the server reports it, at any time
//	forge EVENT [EXIT]   an outcome or deadline comes that should not come there
//	wait DURATION        time passes
//	then                 nothing; what was postponed has moved the machine
type story struct {
	name  string
	lines []string
}

const storyFile = "testdata/stories.txt"

func readStories(t *testing.T) (all []story) {
	text, err := os.ReadFile(storyFile)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "# "); ok {
			all = append(all, story{name: name})
		} else if line != "" {
			all[len(all)-1].lines = append(all[len(all)-1].lines, line)
		}
	}
	return all
}

// tell plays a story on a machine with the table. It returns the story as it comes out, and the first line that comes
// out otherwise than it is written.
func tell(t *testing.T, table Table, s story) (lines []string, told error) {
	synctest.Test(t, func(*testing.T) {
		set := make(chan Effect, 16)
		w := &world{say: make(chan Outcome), exit: make(chan ExitCode, 1)}
		effects := make(map[Effect]EffectFunc)
		for _, spec := range table.Effects {
			effects[spec.Name] = func(ctx context.Context, e Entry) (out Outcome) {
				set <- spec.Name
				if len(spec.Outcomes) > 0 {
					out = w.report(ctx, e, spec)
				}
				return out
			}
		}
		m, err := New(Config{Table: table, Effects: effects, Timeouts: func() Timeouts { return seconds }, Log: zerolog.Nop()})
		if err != nil {
			told = err
			return
		}
		w.Machine = m
		go func() { w.exit <- m.Run() }()
		synctest.Wait()
		defer w.End()
		effect := Effect("")
		for _, line := range s.lines {
			what, want, _ := strings.Cut(line, "→")
			before := m.Snapshot()
			verdict, err := happen(w, strings.Fields(what))
			if err != nil {
				told = fmt.Errorf("%s: %s: %w", s.name, line, err)
				return
			}
			synctest.Wait()
			for len(set) > 0 {
				effect = <-set
			}
			got := observe(m.Snapshot(), before, effect, verdict)
			lines = append(lines, fmt.Sprintf("%-24s → %s", strings.TrimSpace(what), got))
			if told == nil && got != strings.TrimSpace(want) {
				told = fmt.Errorf("%s: %s → %s, not %s", s.name, strings.TrimSpace(what), got, strings.TrimSpace(want))
			}
		}
	})
	return lines, told
}

func happen(w *world, what []string) (verdict Verdict, err error) {
	var ev Event
	o, r := Outcome{}, Request{}
	if len(what) > 1 {
		ev = Event(what[1])
		o.Event, r.Event = ev, ev
	}
	if len(what) > 2 && what[0] == "ask" {
		d, err := time.ParseDuration(what[2])
		if err != nil {
			return "", err
		}
		r.Drain = &d
	} else if len(what) > 2 {
		code, err := strconv.Atoi(what[2])
		if err != nil {
			return "", err
		}
		o.Exit = ExitCode(code)
	}
	switch what[0] {
	case "then":
	case "ask":
		return w.ask(r), nil
	case "report":
		select {
		case w.say <- o:
		default:
			return "", fmt.Errorf("no effect waits to report")
		}
	case "raise", "forge":
		w.box.post(mail{outcome: &outcomeMail{Outcome: o, generation: w.Snapshot().Generation}})
	case "wait":
		d, err := time.ParseDuration(what[1])
		if err != nil {
			return "", err
		}
		time.Sleep(d) // virtual
	default:
		return "", fmt.Errorf("nothing is called %s", what[0])
	}
	return "", nil
}

func observe(s, before Snapshot, effect Effect, verdict Verdict) string {
	intent := string(s.Intent)
	if intent == "" {
		intent = "-"
	}
	got := fmt.Sprintf("%s %s %s %d %s", s.State, effect, intent, int(s.Exit), s.Admission)
	if s.Ready {
		got += " starts"
	}
	switch {
	case s.Counters.Impossible > before.Counters.Impossible:
		got += " impossible"
	case verdict != "" && verdict != VerdictAccepted:
		got += " " + string(verdict)
	case s.Counters.Ignored > before.Counters.Ignored:
		got += " ignored"
	}
	return got
}

func TestTheStoriesComeTrue(t *testing.T) {
	stories := readStories(t)
	var all strings.Builder
	for _, s := range stories {
		lines, err := tell(t, Lifecycle(), s)
		if !*rewrite {
			require.NoError(t, err)
		}
		_, _ = fmt.Fprintf(&all, "# %s\n%s\n\n", s.name, strings.Join(lines, "\n"))
	}
	if *rewrite {
		require.NoError(t, os.WriteFile(storyFile, []byte(strings.TrimSpace(all.String())+"\n"), 0o644))
	}
	t.Logf("%d stories", len(stories))
}

// Every row of the table is removed and altered in every way; the machine must refuse to be built, or a
// story must come out otherwise.
func TestNoAlterationOfTheTableGoesUnnoticed(t *testing.T) {
	var survived []string
	stories, unbuilt, untrue := readStories(t), 0, 0
	for _, m := range mutants() {
		table := Lifecycle()
		m.alter(&table)
		if table.Check() != nil {
			unbuilt++
			continue
		}
		noticed := false
		for _, story := range stories {
			if _, err := tell(t, table, story); err != nil {
				noticed = true
				break
			}
		}
		if noticed {
			untrue++
		} else {
			survived = append(survived, m.name)
		}
	}
	t.Logf("%d alterations: %d refused at construction, %d make a story untrue", unbuilt+untrue+len(survived), unbuilt, untrue)
	require.Empty(t, survived)
}

type mutant struct {
	name  string
	alter func(*Table)
}

func mutants() (all []mutant) {
	table := Lifecycle()
	add := func(name string, alter func(*Table)) { all = append(all, mutant{name, alter}) }
	for i, c := range table.Cells {
		at := fmt.Sprintf("%s × %s: ", c.State, c.Label())
		add(at+"removed", func(t *Table) { t.Cells = append(t.Cells[:i:i], t.Cells[i+1:]...) })
		for _, k := range []Kind{Coalesced, Ignored, Postponed, Impossible} {
			if k != c.Kind && c.State != table.Final {
				add(at+string(k), func(t *Table) { t.Cells[i] = Cell{State: c.State, Event: c.Event, When: c.When, Kind: k, Why: c.Why} })
			}
		}
		if c.Kind == Transition {
			for _, s := range table.States {
				if s.Name != c.To {
					add(at+"to "+string(s.Name), func(t *Table) { t.Cells[i].To = s.Name })
				}
			}
			for _, e := range table.Effects {
				if e.Name != c.Effect {
					add(at+"sets off "+string(e.Name), func(t *Table) { t.Cells[i].Effect = e.Name })
				}
			}
		}
		if c.Kind == Transition || c.Kind == Internal {
			for _, intent := range []Intent{"", IntentNone, IntentStop, IntentRestart} {
				if intent != c.Intent && !sameIntent(c, intent) {
					add(at+"intends "+string(intent), func(t *Table) { t.Cells[i].Intent = intent })
				}
			}
			if c.Kind == Transition {
				for _, codes := range [][]ExitCode{nil, {ExitFailed}, {ExitForced}, {ExitServer}, {ExitFailed, ExitConfig}} {
					if !slices.Equal(codes, c.Exits) {
						add(fmt.Sprintf("%sexits with %v", at, codes), func(t *Table) { t.Cells[i].Exits = codes })
					}
				}
			}
		}
		if c.Kind == Internal {
			add(at+"holds or not", func(t *Table) { t.Cells[i].Holds = !c.Holds })
		}
		for _, when := range []Intent{"", IntentNone, IntentStop, IntentRestart} {
			if when != c.When && (c.When != "" || len(intents(table, c.State)) > 1) {
				add(at+"when "+string(when), func(t *Table) { t.Cells[i].When = when })
			}
		}
	}
	for i, s := range table.States {
		if s.Name != table.Final {
			for _, a := range []Admission{Open, Held, Refused} {
				if a != s.Admission {
					add(fmt.Sprintf("%s: new turns %s", s.Name, a), func(t *Table) { t.States[i].Admission = a })
				}
			}
		}
		add(string(s.Name)+": turns start or not", func(t *Table) { t.States[i].Starts = !s.Starts })
		for j := range s.Deadlines {
			if j > 0 {
				continue // the second deadline of Draining is a net below the first: see the story that forges it
			}
			add(fmt.Sprintf("%s: no deadline", s.Name), func(t *Table) { t.States[i].Deadlines = nil })
			for _, setting := range []Setting{StartTimeout, DrainTimeout, ShutdownTimeout, RespawnTimeout} {
				if seconds[setting] != s.Deadlines[j].After[0].of(seconds) {
					add(fmt.Sprintf("%s: ends after %s", s.Name, setting), func(t *Table) { t.States[i].Deadlines[j].After = []Setting{setting} })
				}
			}
		}
	}
	return all
}

// intents lists what can be intended in a state.
func intents(table Table, s State) (all []Intent) {
	for _, p := range table.pairs() {
		if p.state == s {
			all = append(all, p.intent)
		}
	}
	return all
}

// sameIntent reports whether the intent would be the same in effect: nothing is intended before the cell, or
// the same already.
func sameIntent(c Cell, other Intent) bool {
	same := true
	for _, before := range intents(Lifecycle(), c.State) {
		if c.counts(before) {
			changed := c
			changed.Intent = other
			same = same && c.then(before) == changed.then(before)
		}
	}
	return same
}

func (s Setting) of(t Timeouts) time.Duration { return t[s] }
