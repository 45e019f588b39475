package queue

import (
	"context"
	"errors"
	"fmt"
)

// maxSettings bounds the sessions that something is set for.
const maxSettings = 10_000

// ErrNoLane: no such lane.
var ErrNoLane = errors.New("queue: no such lane")

// PauseLane stops or allows starts in a lane, durably; what runs goes on. It returns the lane, or [ErrNoLane].
func (q *Queue) PauseLane(ctx context.Context, name string, paused bool) (view Lane, err error) {
	op := &changeSetting{
		progress: progress{done: make(chan struct{})}, kind: laneSetting, name: name, paused: &paused,
	}
	if err := q.do(ctx, op, func() { q.scheduler.change(op) }); err != nil {
		return Lane{}, err
	}
	for _, l := range q.Lanes() {
		if l.Name == name {
			return l, nil
		}
	}
	return Lane{Name: name, Paused: paused}, nil // it was not configured, and nothing is left in it
}

// SessionChange is what to set for a session; nil leaves it as it is.
type SessionChange struct {
	// Paused stops or allows starts; what runs goes on.
	Paused *bool `json:"paused"`
	// Mode is for the turns that come from now on and do not say; empty goes back to the agent's.
	Mode *Mode `json:"mode"`
}

// SetSession sets how a session behaves, durably, and returns it. The session needs no turns yet.
func (q *Queue) SetSession(ctx context.Context, name string, c SessionChange) (Session, error) {
	if name == "" {
		return Session{}, errors.New("queue: a session needs a name")
	}
	if c.Mode != nil && !c.Mode.Valid() {
		return Session{}, fmt.Errorf("queue: mode %q: want %q, %q or %q", *c.Mode, Followup, Collect, Interrupt)
	}
	op := &changeSetting{
		progress: progress{done: make(chan struct{})}, kind: sessionSetting, name: name, paused: c.Paused, mode: c.Mode,
	}
	if err := q.do(ctx, op, func() { q.scheduler.change(op) }); err != nil {
		return Session{}, err
	}
	return q.Session(ctx, name)
}

// Session returns one session; one without turns has the name alone, and what was set for it.
func (q *Queue) Session(ctx context.Context, name string) (Session, error) {
	return read(q, func() (Session, error) { return q.store.session(ctx, name) })
}

// change has a setting written down.
func (s *scheduler) change(op *changeSetting) {
	switch {
	case s.over != nil:
		s.refuse(op, s.over)
	case op.kind == laneSetting && s.lanes[op.name] == nil && !s.pausedLanes[op.name]:
		s.refuse(op, fmt.Errorf("%w: %q", ErrNoLane, op.name))
	case op.kind == sessionSetting && s.settings[op.name] == setting{} && len(s.settings) >= maxSettings:
		s.refuse(op, fmt.Errorf("%w: something is set for %d sessions, which is the limit", ErrFull, maxSettings))
	default:
		s.out = append(s.out, op)
	}
}

// changed takes in what is on disk now.
func (s *scheduler) changed(op *changeSetting) {
	if op.err == nil {
		s.set(op.kind, op.name, op.now)
	}
}

func (s *scheduler) set(kind settingKind, name string, now setting) {
	switch {
	case kind == laneSetting && now.paused:
		s.pausedLanes[name] = true
	case kind == laneSetting:
		delete(s.pausedLanes, name)
	case now == setting{}:
		delete(s.settings, name)
	default:
		s.settings[name] = now
	}
	if sess, ok := s.sessions[name]; ok && kind == sessionSetting {
		sess.paused = now.paused
		sess.seat()
	}
}
