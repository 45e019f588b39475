package fsm

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// move is one step of the machine, carried through looplab's callbacks.
type move struct {
	cell   Cell
	effect Effect
	reason string
	actor  string
	hop    Hop
}

// Run owns the machine until the final state and returns the process's exit code. Call it once.
func (m *Machine) Run() int {
	first := &move{effect: m.cfg.Table.First, reason: "the process starts", actor: "gateway"}
	m.enter(m.cfg.Table.Initial, first)
	m.begin(first)
	for !m.done {
		m.handle(m.box.take())
	}
	for _, rest := range m.box.close() {
		if rest.request != nil && rest.request.answer != nil {
			rest.request.answer <- Decision{Outcome: "ignored", State: m.state, Message: "the process ends", Hop: m.history.last()}
		}
		if rest.commit != nil {
			rest.commit.answer <- ErrSuperseded
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

func (m *Machine) outcome(in mail) {
	o := in.outcome
	if (o.visit != 0 && o.visit != m.visit) || (o.visit == 0 && o.generation != m.generation) {
		m.counters.Late++
		m.publish()
		m.cfg.Log.Debug().Str("event", string(o.Event)).Str("state", string(m.state)).Msg("late outcome dropped")
		return
	}
	// A close does not choose between stop and restart: a stop may arrive until the owner reads its end.
	if m.cells[key{m.state, ClosedForRestart}].Kind == Transition && (o.Event == Closed || o.Event == ClosedForRestart) {
		o.Event = Closed
		if m.intent == IntentRestart {
			o.Event = ClosedForRestart
		}
	}
	cell := m.cells[key{m.state, o.Event}]
	switch cell.Kind {
	case Transition:
		if o.Exit != 0 {
			cell.Exit = o.Exit
		}
		m.fire(&move{cell: cell, effect: cell.Effect, reason: o.Reason, actor: "gateway"})
	case Postponed:
		if m.holdsPostponed(o.Event) {
			m.counters.Ignored++
		} else {
			m.postponed = append(m.postponed, in)
		}
		m.publish()
	case Ignored, Internal:
		m.counters.Ignored++
		m.publish()
		m.cfg.Log.Debug().Str("event", string(o.Event)).Str("state", string(m.state)).Str("why", cell.Why).Msg("ignored")
	default:
		m.counters.Impossible++
		m.publish()
		m.cfg.Log.Error().Str("event", string(o.Event)).Str("state", string(m.state)).Str("reason", o.Reason).Msg("impossible event; please report it")
	}
}

func (m *Machine) request(in mail) {
	r := in.request
	cell := m.cells[key{m.state, r.Event}]
	d := Decision{Outcome: "ignored", Message: cell.Why}
	switch cell.Kind {
	case Transition:
		d.Outcome = "accepted"
		m.asked = r.Request
		m.fire(&move{cell: cell, effect: cell.Effect, reason: r.Reason, actor: r.Actor})
	case Internal:
		if m.intent == cell.Intent {
			d.Outcome = "coalesced"
			m.counters.Ignored++
			break
		}
		d.Outcome = "accepted"
		m.asked = r.Request
		m.inPlace(&move{cell: cell, reason: r.Reason, actor: r.Actor})
	case Postponed:
		d.Outcome = "postponed"
		if m.holdsPostponed(r.Event) {
			d.Outcome = "coalesced"
			break
		}
		m.postponed = append(m.postponed, mail{request: &requestMail{Request: r.Request}})
	case Ignored:
		if r.Event == Restart && m.intent == IntentRestart {
			d.Outcome = "coalesced"
			d.Message = fmt.Sprintf("a restart is under way already, asked for by %s", m.asked.Actor)
		}
		m.counters.Ignored++
	default:
		m.counters.Impossible++
		d.Message = fmt.Sprintf("%s is not an event that can be asked for", r.Event)
	}
	m.publish()
	d.State, d.Hop = m.state, m.history.last()
	if m.cfg.OnDecision != nil {
		m.cfg.OnDecision(r.Request, d)
	}
	if d.Outcome != "accepted" {
		m.cfg.Log.Info().Str("actor", r.Actor).Str("event", string(r.Event)).Str("state", string(m.state)).Str("why", d.Message).
			Msg("received " + r.Actor + " while " + string(m.state) + "; " + d.Outcome)
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
	restore := c.quiesce()
	if m.box.holds(Stop) {
		restore()
		c.answer <- ErrSuperseded
		return
	}
	err := c.act()
	restore()
	c.answer <- err
	if err == nil && c.then.Event != "" {
		m.outcome(mail{outcome: &outcomeMail{Outcome: c.then, visit: c.visit}})
	}
}

// fire moves looplab's machine. The context is never one that can end: looplab stays in transition for
// ever when it does.
func (m *Machine) fire(mv *move) {
	if err := m.core.Event(context.Background(), string(mv.cell.Event), mv); err != nil {
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

// leave is looplab's leave_state callback: the visit's context and timers end with it.
func (m *Machine) leave() {
	m.cancel(fmt.Errorf("fsm: %s was left", m.state))
	for _, t := range m.timers {
		t.Stop()
	}
	m.timers = nil
}

// enter is looplab's enter_state callback: it records the hop and arms the deadlines.
func (m *Machine) enter(to State, mv *move) {
	if to == m.cfg.Table.Initial && m.visit > 0 {
		m.generation++
	}
	from := m.state
	if m.visit == 0 {
		from = ""
	}
	m.visit++
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	m.apply(mv.cell)
	m.record(from, to, mv)
	m.state, m.since = to, mv.hop.Time
	m.arm()
	if to != m.cfg.Table.Final {
		m.publish()
	}
}

// inPlace records a cell that changes the intent but not the state.
func (m *Machine) inPlace(mv *move) {
	m.apply(mv.cell)
	m.record(m.state, m.state, mv)
	m.publish()
}

func (m *Machine) apply(c Cell) {
	switch c.Intent {
	case "":
	case IntentNone:
		m.intent = ""
	default:
		m.intent = c.Intent
	}
	if c.Exit != 0 {
		m.exit = c.Exit
	}
}

func (m *Machine) record(from, to State, mv *move) {
	now := time.Now()
	mv.hop = Hop{
		BootID: m.cfg.BootID, Generation: m.generation, Time: now,
		From: from, Event: mv.cell.Event, To: to, Reason: mv.reason, Actor: mv.actor,
	}
	if from != "" {
		mv.hop.LastedMS = float64(now.Sub(m.since).Microseconds()) / 1000
	}
	mv.hop.Seq = m.history.add(mv.hop)
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

// arm sets the timers of the state, and the one that does not depend on the machine.
func (m *Machine) arm() {
	if m.lastResort != nil {
		m.lastResort.Stop()
	}
	timeouts, visit, longest := maps.Clone(m.cfg.Timeouts()), m.visit, time.Duration(0)
	if d := m.asked.Drain; d != nil {
		timeouts[DrainTimeout] = max(timeouts[DrainTimeout], *d)
	}
	m.deadline = 0
	for i, d := range m.states[m.state].Deadlines {
		after := d.sum(timeouts)
		longest = max(longest, after)
		if i == 0 {
			m.deadline = after
		}
		reason := fmt.Sprintf("%s took longer than %s", m.state, after)
		m.timers = append(m.timers, time.AfterFunc(after, func() {
			m.box.post(mail{outcome: &outcomeMail{Outcome: Outcome{Event: d.Event, Reason: reason}, visit: visit}})
		}))
	}
	if m.states[m.state].Starts || m.cfg.LastResort == nil {
		return
	}
	if m.state == m.cfg.Table.Final {
		longest = finalWait
	}
	m.lastResort = time.AfterFunc(longest+lastResortSlack, func() { m.cfg.LastResort(m.Snapshot()) })
}

func (d DeadlineSpec) sum(t Timeouts) time.Duration {
	var sum time.Duration
	for _, s := range d.After {
		sum += t[s]
	}
	return sum
}

// begin is looplab's after_event callback: it hands the effect to a goroutine, which waits for the effect
// before it, so that no two effects overlap. The effect of the final state runs here: that state may be
// read only once it is true.
func (m *Machine) begin(mv *move) {
	spec := m.effects[mv.effect]
	entry := Entry{Hop: mv.hop, Request: m.asked, m: m, visit: m.visit}
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
