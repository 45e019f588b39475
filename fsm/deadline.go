package fsm

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// visitClock holds the deadlines of a visit. Its owner is that of the machine.
type visitClock struct {
	timeouts Timeouts // as they were when the state was entered
	wished   time.Time
	timers   []*time.Timer
	armed    uint64    // counts how often timers were set; they carry it
	until    *deadline // the first deadline
}

// deadline is when a visit ends by itself, as others see it; zero for never.
type deadline struct{ time atomic.Pointer[time.Time] }

func (d *deadline) at() time.Time {
	if t := d.time.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

func (d *deadline) set(t time.Time) { d.time.Store(&t) }

// visitContext is what the effects of a visit run under. It names the deadline, which may move, and ends once the
// machine has left the state: what the deadline leads to is recorded first, and no effect can end in the same instant.
// That is why it is not [context.WithDeadlineCause].
type visitContext struct {
	context.Context
	until *deadline
}

// Deadline implements context.Context.
func (c visitContext) Deadline() (time.Time, bool) {
	at := c.until.at()
	return at, !at.IsZero()
}

// deadlineError is the cause of a context whose state has ended by its deadline.
type deadlineError struct{ reason string }

// Error implements error.
func (e *deadlineError) Error() string { return e.reason }

// Unwrap makes it a [context.DeadlineExceeded].
func (e *deadlineError) Unwrap() error { return context.DeadlineExceeded }

// openClock begins the visit that was just entered. drain is the time that the request asked for; nil for none.
func (m *Machine) openClock(drain *time.Duration) {
	m.clock.until = &deadline{}
	m.clock.timeouts, m.clock.wished = m.cfg.Timeouts(), time.Time{}
	if drain != nil && m.drains() {
		m.clock.wished = m.since.Add(*drain)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	m.ctx, m.cancel = visitContext{ctx, m.clock.until}, cancel
	m.arm()
}

// wish moves the deadline of a drain that is under way to so long from now. False when nothing drains.
func (m *Machine) wish(drain time.Duration) bool {
	if !m.drains() {
		return false
	}
	m.clock.wished = time.Now().Add(drain)
	m.arm()
	return true
}

// drains reports whether the deadline of the state is that of a drain.
func (m *Machine) drains() bool {
	for _, d := range m.states[m.state].Deadlines {
		if slices.Contains(d.After, DrainTimeout) {
			return true
		}
	}
	return false
}

// timeout is the duration of a setting in this visit, which has lasted so long already, and whether it was asked for.
func (m *Machine) timeout(s Setting, lasted time.Duration) (d time.Duration, asked bool) {
	configured := m.clock.timeouts[s]
	if s != DrainTimeout || m.clock.wished.IsZero() {
		return configured, false
	}
	wished := max(lasted, m.clock.wished.Sub(m.since))
	if m.starts && wished < configured { // no successor is prepared, so nobody could take over
		return configured, false
	}
	return wished, true
}

// arm sets the timers of the state anew, and the one that does not depend on the machine.
func (m *Machine) arm() {
	m.clock.stop()
	m.clock.armed++
	lasted, longest := time.Since(m.since), time.Duration(0)
	for i, d := range m.states[m.state].Deadlines {
		var after time.Duration
		due := &deadlineError{}
		for _, s := range d.After {
			of, asked := m.timeout(s, lasted)
			if after += of; asked {
				due.reason = "the restart asked to wait no longer"
			}
		}
		if due.reason == "" {
			due.reason = fmt.Sprintf("%s took longer than %s", m.state, after)
		}
		longest = max(longest, after)
		if i == 0 {
			m.clock.until.set(m.since.Add(after))
		}
		passed := mail{outcome: &outcomeMail{Outcome: Outcome{Event: d.Event, Reason: due.reason}, visit: m.visit, due: due, armed: m.clock.armed}}
		if after <= lasted { // it comes before anything that an effect may still report
			m.box.post(passed)
			continue
		}
		m.clock.timers = append(m.clock.timers, time.AfterFunc(after-lasted, func() { m.box.post(passed) }))
	}
	if m.lastResort != nil {
		m.lastResort.Stop()
	}
	if m.state == m.cfg.Table.Serves || m.cfg.LastResort == nil {
		return
	}
	if m.state == m.cfg.Table.Final {
		longest = finalWait + finalTime
	}
	m.lastResort = time.AfterFunc(longest-lasted+lastResortSlack, func() { m.cfg.LastResort(m.Snapshot()) })
}

// stop ends the timers.
func (c *visitClock) stop() {
	for _, t := range c.timers {
		t.Stop()
	}
	c.timers = nil
}
