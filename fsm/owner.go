package fsm

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// move is one step of the machine, carried through looplab's callbacks.
type move struct {
	cell    Cell
	effect  Effect
	exit    ExitCode // the one that an outcome chose; 0 for the first of the cell
	request Request  // zero for an outcome
	reason  string
	actor   string
	due     *deadlineError // nil unless a deadline passed
	hop     Hop
	left    context.CancelCauseFunc // of the visit that ends
	cause   error                   // why it ends
}

// Run owns the machine until the final state and returns the process's exit code. Call it once.
func (m *Machine) Run() ExitCode {
	first := &move{effect: m.cfg.Table.First, reason: "the process starts", actor: "gateway"}
	m.enter(m.cfg.Table.Initial, first)
	m.begin(first)
	for !m.done {
		m.handle(m.box.take())
	}
	for _, rest := range m.box.close() {
		if rest.request != nil && rest.request.answer != nil {
			rest.request.answer <- Decision{Outcome: VerdictIgnored, State: m.state, Message: "the process ends", Hop: m.history.last()}
		}
		if rest.commit != nil {
			rest.commit.answer <- ErrSuperseded
		}
		if rest.outcome != nil {
			rest.outcome.record(ErrSuperseded)
		}
	}
	return m.exit
}

func (m *Machine) handle(in mail) {
	switch {
	case in.request != nil:
		m.request(in)
	case in.outcome != nil:
		m.outcome(in)
	case in.commit != nil:
		m.commit(in.commit)
	case in.ping != nil:
		in.ping <- struct{}{}
	}
}

// row is the decision of the table for an event now.
func (m *Machine) row(ev Event) Cell {
	row, ok := m.cfg.Table.row(m.state, ev, m.intent)
	if !ok {
		return Cell{State: m.state, Event: ev, Kind: Impossible}
	}
	return row
}

// record lets whoever reported it go on.
func (o *outcomeMail) record(err error) {
	if o.recorded != nil {
		o.recorded <- err
	}
}

// late reports whether what the outcome belongs to is over.
func (m *Machine) late(o *outcomeMail) bool {
	switch {
	case o.visit == 0:
		return o.generation != m.generation
	case o.due != nil && o.armed != m.clock.armed:
		return true
	default:
		return o.visit != m.visit
	}
}

func (m *Machine) outcome(in mail) {
	o := in.outcome
	if m.late(o) {
		m.counters.Late++
		m.publish()
		m.cfg.Log.Debug().Str("event", string(o.Event)).Str("state", string(m.state)).Msg("late outcome dropped")
		o.record(ErrSuperseded)
		return
	}
	defer o.record(nil)
	cell := m.row(o.Event)
	switch kind := cell.Kind; {
	case o.Exit != 0 && !slices.Contains(cell.Exits, o.Exit):
		m.impossible(o.Outcome)
	case kind == Transition:
		m.fire(m.moveFor(cell, o))
	case kind == Internal && m.changes(cell):
		m.inPlace(m.moveFor(cell, o))
	case kind == Postponed:
		if m.holdsPostponed(o.Event) {
			m.counters.Ignored++
		} else {
			m.postponed = append(m.postponed, in)
		}
		m.publish()
	case kind == Impossible:
		m.impossible(o.Outcome)
	default:
		m.counters.Ignored++
		m.publish()
		m.cfg.Log.Debug().Str("event", string(o.Event)).Str("state", string(m.state)).Str("why", cell.Why).Msg("ignored")
	}
}

func (m *Machine) moveFor(cell Cell, o *outcomeMail) *move {
	return &move{cell: cell, effect: cell.Effect, exit: o.Exit, reason: o.Reason, actor: "gateway", due: o.due}
}

func (m *Machine) impossible(o Outcome) {
	m.counters.Impossible++
	m.publish()
	m.cfg.Log.Error().Str("event", string(o.Event)).Str("state", string(m.state)).Int("exit", int(o.Exit)).Str("reason", o.Reason).Msg("impossible event; please report it")
}

// changes reports whether an internal cell changes anything now.
func (m *Machine) changes(c Cell) bool { return c.then(m.intent) != m.intent || (c.Holds && m.starts) }

func (m *Machine) request(in mail) {
	r := in.request
	cell := m.row(r.Event)
	d := Decision{Outcome: cell.Kind.verdict(), Message: cell.Why}
	switch kind := cell.Kind; {
	case kind == Impossible, m.events[r.Event].Class != ByRequest:
		m.counters.Impossible++
		d.Outcome, d.Message = VerdictIgnored, fmt.Sprintf("%s is not an event that can be asked for", r.Event)
	case kind == Transition:
		m.fire(&move{cell: cell, effect: cell.Effect, request: r.Request, reason: r.Reason, actor: r.Actor})
	case kind == Internal:
		m.inPlace(&move{cell: cell, request: r.Request, reason: r.Reason, actor: r.Actor})
	case kind == Postponed && m.holdsPostponed(r.Event):
		d.Outcome = VerdictCoalesced
	case kind == Postponed:
		m.postponed = append(m.postponed, mail{request: &requestMail{Request: r.Request}})
	case kind == Coalesced:
		m.counters.Ignored++
		if m.asked.Actor != "" {
			d.Message += ", asked for by " + m.asked.Actor
		}
		if r.Drain != nil && m.wish(*r.Drain) {
			d.Message += fmt.Sprintf("; it waits for turns at most %s more", *r.Drain)
		}
	default:
		m.counters.Ignored++
	}
	m.publish()
	d.State, d.Hop = m.state, m.history.last()
	if m.cfg.OnDecision != nil {
		m.cfg.OnDecision(r.Request, d)
	}
	if d.Outcome != VerdictAccepted {
		m.cfg.Log.Info().Str("actor", r.Actor).Str("event", string(r.Event)).Str("state", string(m.state)).Str("why", d.Message).
			Msg("received " + r.Actor + " while " + string(m.state) + "; " + string(d.Outcome))
	}
	if r.answer != nil {
		r.answer <- d
	}
}

func (m *Machine) commit(c *commitMail) {
	if c.visit != m.visit {
		c.answer <- ErrSuperseded
		return
	}
	cell := m.row(c.then.Event)
	if cell.Kind != Transition {
		m.impossible(c.then)
		c.answer <- fmt.Errorf("fsm: %q does not move the machine out of %s", c.then.Event, m.state)
		return
	}
	restore := c.quiesce()
	if m.box.holds(Stop) {
		restore()
		c.answer <- ErrSuperseded
		return
	}
	mv := m.moveFor(cell, &outcomeMail{Outcome: c.then})
	mv.hop = m.hop(m.state, cell.To, mv)
	err := c.act(mv.hop)
	restore()
	c.answer <- err
	if err == nil {
		m.fire(mv)
	}
}

// fire moves looplab's machine. The context is never one that can end: looplab stays in transition for
// ever when it does.
func (m *Machine) fire(mv *move) {
	if err := m.core.Event(context.Background(), mv.cell.Label(), mv); err != nil {
		m.counters.Impossible++
		m.cfg.Log.Error().Err(err).Str("event", string(mv.cell.Event)).Str("state", string(m.state)).Msg("the table and its machine disagree; please report it")
		return
	}
	m.redeliver()
}

// redeliver decides anew what was postponed.
func (m *Machine) redeliver() {
	again := m.postponed
	m.postponed = nil
	for _, in := range again {
		m.handle(in)
	}
}

func (m *Machine) holdsPostponed(ev Event) bool {
	return slices.ContainsFunc(m.postponed, func(in mail) bool {
		if in.request != nil {
			return in.request.Event == ev
		}
		return in.outcome.Event == ev
	})
}

// leave is looplab's leave_state callback: the visit's timers end with it, and its context once the next state is entered,
// so that whoever finds it ended finds the hop as well.
func (m *Machine) leave(mv *move) {
	mv.left, mv.cause = m.cancel, fmt.Errorf("fsm: %s was left", m.state)
	if mv.due != nil {
		mv.cause = mv.due
	}
	m.clock.stop()
}

// enter is looplab's enter_state callback: it records the hop and arms the deadlines.
func (m *Machine) enter(to State, mv *move) {
	from := m.state
	if m.visit == 0 {
		from = ""
	}
	m.apply(mv)
	m.record(from, to, mv)
	m.visit++
	m.generation = mv.hop.Generation
	m.state, m.since, m.starts = to, mv.hop.Time, m.states[to].Starts
	m.openClock(mv.request.Drain)
	if to != m.cfg.Table.Final {
		m.publish()
	}
	if mv.left != nil {
		mv.left(mv.cause)
	}
}

// inPlace records a cell that does not change the state.
func (m *Machine) inPlace(mv *move) {
	m.apply(mv)
	m.record(m.state, m.state, mv)
	if mv.cell.Holds {
		m.starts = false
		m.arm() // a wish for a shorter drain counts from here on
	}
	m.publish()
}

func (m *Machine) apply(mv *move) {
	if mv.cell.Intent != "" {
		m.asked = mv.request
	}
	m.intent = mv.cell.then(m.intent)
	switch {
	case mv.exit != 0:
		m.exit = mv.exit
	case len(mv.cell.Exits) > 0:
		m.exit = mv.cell.Exits[0]
	}
}

// hop is what the move records.
func (m *Machine) hop(from, to State, mv *move) Hop {
	now := time.Now()
	h := Hop{
		Seq: m.history.following(), BootID: m.cfg.BootID, Generation: m.generation, Time: now,
		From: from, Event: mv.cell.Event, To: to, Reason: mv.reason, Actor: mv.actor,
	}
	if to == m.cfg.Table.Initial && from != "" {
		h.Generation++
	}
	if from != "" {
		h.LastedMS = float64(now.Sub(m.since).Microseconds()) / 1000
	}
	return h
}

func (m *Machine) record(from, to State, mv *move) {
	if mv.hop.Seq == 0 {
		mv.hop = m.hop(from, to, mv)
	}
	m.history.add(mv.hop)
	m.logHop(mv.hop)
	if m.cfg.OnHop != nil {
		m.cfg.OnHop(mv.hop)
	}
}

func (m *Machine) logHop(h Hop) {
	text := string(h.To)
	if h.From != "" {
		text = string(h.From) + " → " + text
	}
	m.cfg.Log.Info().Uint64("hop", h.Seq).Str("actor", h.Actor).Func(func(e *zerolog.Event) {
		if h.From != "" {
			e.Str("event", string(h.Event)).Float64("lasted_ms", h.LastedMS)
		}
		if h.Reason != "" {
			e.Str("reason", h.Reason)
		}
	}).Msg(text)
}

// begin is looplab's after_event callback: it hands the effect to a goroutine, which waits for the effect
// before it, so that no two effects overlap. The effect of the final state runs here: that state may be
// read only once it is true.
func (m *Machine) begin(mv *move) {
	spec := m.effects[mv.effect]
	entry := Entry{Hop: mv.hop, Request: m.asked, m: m, visit: m.visit, until: m.clock.until}
	ctx, previous, returned := m.ctx, m.previous, make(chan struct{})
	m.previous = returned
	if m.state == m.cfg.Table.Final {
		defer close(returned)
		m.finish(ctx, spec, entry, previous)
		return
	}
	go func() {
		defer close(returned)
		if previous != nil && !spec.AtOnce {
			<-previous // its context has ended; if it hangs all the same, the deadline moves the machine on
		}
		if ctx.Err() != nil && len(spec.Outcomes) > 0 {
			return // its state is over; an effect without outcomes is a fact that later ones build on
		}
		if out := m.perform(ctx, spec, entry); out.Event != "" {
			m.box.post(mail{outcome: &outcomeMail{Outcome: out, visit: entry.visit}})
		}
	}()
}

func (m *Machine) finish(ctx context.Context, spec EffectSpec, e Entry, previous <-chan struct{}) {
	if previous != nil && !spec.AtOnce {
		select {
		case <-previous:
		case <-time.After(finalWait):
			m.cfg.Log.Warn().Msg("the effect before the last one has not returned; going on without it")
		}
	}
	e.until.set(time.Now().Add(finalTime))
	ctx, cancel := context.WithDeadlineCause(ctx, e.Deadline(), fmt.Errorf("fsm: the effect %s took longer than %s", spec.Name, finalTime))
	defer cancel()
	m.perform(ctx, spec, e)
	m.cancel(ErrStopped)
	if m.lastResort != nil {
		m.lastResort.Stop()
	}
	m.done = true
	m.publish()
}

// perform runs an effect; a panic becomes the outcome that the table names for it.
func (m *Machine) perform(ctx context.Context, spec EffectSpec, e Entry) (out Outcome) {
	defer func() {
		if p := recover(); p != nil {
			m.cfg.Log.Error().Str("effect", string(spec.Name)).Interface("panic", p).Bytes("stack", debug.Stack()).Msg("an effect panicked; please report it")
			out = Outcome{Event: spec.Panic, Reason: fmt.Sprintf("the effect %s panicked: %v", spec.Name, p)}
		}
	}()
	return m.cfg.Effects[spec.Name](ctx, e)
}
