package queue

import (
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// A queued turn is carried along in memory until it starts, instead of being read again, while it and all
// that are carried stay below these sizes.
const (
	carryOne = 64 << 10
	carryAll = 16 << 20
)

// scheduler owns the sessions and lanes: its goroutine is the only one that reads or changes them. It
// decides what starts, and learns what is on disk from the committer's batches, in commit order. Each
// round it takes in all messages, starts what may start, publishes its counts, hands the new operations
// to the committer, and only then answers: whoever was answered finds the counts up to date.
type scheduler struct {
	cfg      *Config
	log      zerolog.Logger
	mail     *mailbox[func()]
	submit   func(...operation) bool
	launch   func(*place, Turn)
	hub      *hub
	snapshot atomic.Pointer[Stats]
	idle     chan struct{} // closed once over is set and nothing is under way
	done     chan struct{}

	// Owned by run; read-only once done is closed.
	sessions map[string]*session
	lanes    map[string]*lane
	places   map[string]*place
	// What a person has set, whether or not anything waits there.
	settings    map[string]setting // by session
	pausedLanes map[string]bool
	underWay    map[*place]struct{} // the places that hold a slot
	warned      map[string]bool     // lanes that no configuration names, once logged
	stats       Stats
	reserved    int
	carried     int // bytes
	paused      bool
	over        error // why nothing is taken or started any more; nil while the queue is open
	drains      []drain
	settled     bool // idle is closed
	out         []operation
	told        []operation
}

// drain waits until nothing is under way but the turn that it excepts.
type drain struct {
	except  string
	reached chan struct{}
}

func newScheduler(cfg *Config, epoch int64, hub *hub) *scheduler {
	s := &scheduler{
		cfg: cfg, log: cfg.Log, hub: hub,
		mail: newMailbox[func()](), done: make(chan struct{}), idle: make(chan struct{}),
		sessions: map[string]*session{}, lanes: map[string]*lane{}, places: map[string]*place{},
		underWay: map[*place]struct{}{},
		settings: map[string]setting{}, pausedLanes: map[string]bool{},
		warned: map[string]bool{}, paused: true,
	}
	for name, n := range cfg.Lanes {
		s.lanes[name] = &lane{name: name, concurrency: n, configured: true}
	}
	s.stats.Epoch = epoch
	s.publish()
	return s
}

func (s *scheduler) run() {
	defer close(s.done)
	var buf []func()
	for range s.mail.wake {
		messages, open := s.mail.take(buf[:0], math.MaxInt)
		if !open {
			return
		}
		for _, m := range messages {
			m()
		}
		s.dispatch()
		s.publish()
		s.rested()
		if !s.submit(s.out...) {
			for _, op := range s.out {
				s.refuse(op, ErrClosed)
			}
		}
		s.answer()
		clear(messages)
		buf = messages
	}
}

// ask runs f in the scheduler's goroutine and waits for it; false when the scheduler has ended.
func (s *scheduler) ask(f func()) bool {
	ran := make(chan struct{})
	if !s.mail.put(func() { f(); close(ran) }) {
		return false
	}
	<-ran
	return true
}

// look is ask for an f that only reads: once the scheduler has ended its state is at rest.
func (s *scheduler) look(f func()) {
	if !s.ask(f) {
		<-s.done
		f()
	}
}

// dispatch starts the first turn of every ready session that its lane has room for.
func (s *scheduler) dispatch() {
	if !s.paused && s.over == nil {
		for _, l := range s.lanes {
			for l.running < l.concurrency && l.ready.Len() > 0 && !s.pausedLanes[l.name] {
				s.start(l.ready.Front().Value.(*session).line[0])
			}
		}
	}
}

// rested tells those who wait until nothing is under way. It comes after publish.
func (s *scheduler) rested() {
	s.drains = slices.DeleteFunc(s.drains, func(d drain) bool {
		left := len(s.underWay)
		if p, ok := s.places[d.except]; ok && p.phase >= starting {
			left--
		}
		if left == 0 {
			close(d.reached)
		}
		return left == 0
	})
	if s.over != nil && len(s.underWay) == 0 && !s.settled {
		close(s.idle)
		s.settled = true
	}
}

func (s *scheduler) publish() {
	s.stats.Running = len(s.underWay)
	if old := s.snapshot.Load(); old == nil || *old != s.stats {
		stats := s.stats
		s.snapshot.Store(&stats)
	}
}

// answer lets everybody see what the committer told.
func (s *scheduler) answer() {
	clear(s.out)
	s.out = s.out[:0]
	s.hub.tell(s.told)
	for _, op := range s.told {
		if done := op.status().done; done != nil {
			close(done)
		}
	}
	clear(s.told)
	s.told = s.told[:0]
}

// start gives the place its lane's slot and has the start written down; the attempt runs after that.
func (s *scheduler) start(p *place) {
	p.leave()
	p.phase = starting
	p.session.current = p
	p.session.seat()
	p.lane.running++
	s.stats.Queued--
	s.underWay[p] = struct{}{}
	op := &startTurn{progress: progress{durable: true}, place: p, seq: p.seq, at: now()}
	op.queued = p.turn
	s.drop(p)
	s.out = append(s.out, op)
}

// release gives the slot back.
func (s *scheduler) release(p *place) {
	p.session.current = nil
	p.attempt = nil
	p.lane.running--
	delete(s.underWay, p)
}

// wait puts the place in line.
func (s *scheduler) wait(p *place) {
	p.enter()
	s.stats.Queued++
	p.session.seat()
}

// forget removes a turn that is not open any more.
func (s *scheduler) forget(p *place) {
	s.drop(p)
	p.unhold()
	delete(s.places, p.id)
	s.tidy(p.session)
	if p.lane.idle() {
		delete(s.lanes, p.lane.name)
	}
}

// tidy makes the session ready when it is, and forgets it when nothing is left of it.
func (s *scheduler) tidy(sess *session) {
	sess.seat()
	if sess.idle() {
		delete(s.sessions, sess.name)
	}
}

func (s *scheduler) session(name string) *session {
	sess, ok := s.sessions[name]
	if !ok {
		sess = &session{name: name, paused: s.settings[name].paused}
		s.sessions[name] = sess
	}
	return sess
}

func (s *scheduler) lane(name string) *lane {
	l, ok := s.lanes[name]
	if !ok {
		if !s.warned[name] {
			s.warned[name] = true
			s.log.Warn().Str("lane", name).Msg("turns wait in a lane that is not configured; it runs one at a time")
		}
		l = &lane{name: name, concurrency: 1}
		s.lanes[name] = l
	}
	return l
}

func (s *scheduler) open(t waitingTurn) *place {
	p := &place{seq: t.seq, id: t.id, session: s.session(t.session), lane: s.lane(t.lane), createdAt: t.createdAt}
	s.places[t.id] = p
	return p
}

// load puts a turn in line that an earlier generation accepted; part of open.
func (s *scheduler) load(t waitingTurn) {
	p := s.open(t)
	if t.notBefore > 0 {
		s.hold(p, time.Until(fromMicros(t.notBefore)))
	}
	s.wait(p)
	s.hub.opened(t.id)
	if t.interrupt {
		s.supersede(p)
	}
}

// resume allows starts, and returns once that holds.
func (s *scheduler) resume() {
	s.ask(func() { s.paused = false })
}

// carry keeps the turn at hand for its start when there is room.
func (s *scheduler) carry(p *place, t *Turn) {
	if n := size(t); n <= carryOne && s.carried+n <= carryAll {
		p.turn = t
		s.carried += n
	}
}

func (s *scheduler) drop(p *place) {
	if p.turn != nil {
		s.carried -= size(p.turn)
		p.turn = nil
	}
}

func size(t *Turn) int { return len(t.Input) + len(t.Context) }

// cancel begins to end the turn. known is false when the turn is not open; op.done is closed when the
// answer is known, op is nil when the end of the turn is the answer.
func (s *scheduler) cancel(id string) (op *cancelTurn, known bool, err error) {
	p, ok := s.places[id]
	switch {
	case !ok:
		return nil, false, nil
	case s.over != nil:
		return nil, true, s.over
	}
	return s.end(p, ErrCancelled), true, nil
}

// end begins to cancel an open turn; the operation is nil when the end of the turn is the answer.
func (s *scheduler) end(p *place, cause error) *cancelTurn {
	switch p.phase {
	case waiting:
		p.phase = cancelling
		p.session.seat()
		p.cancel = &cancelTurn{
			progress: progress{done: make(chan struct{})}, place: p, seq: p.seq, at: now(), why: reason(cause),
		}
		s.out = append(s.out, p.cancel)
	case cancelling:
	case starting:
		p.unwanted = cause
	case running:
		p.attempt.stop(cause, s.cfg.CancelGrace)
	}
	return p.cancel
}

// supersede cancels what its session has before the place.
func (s *scheduler) supersede(p *place) {
	if p.session.current != nil {
		s.end(p.session.current, ErrSuperseded)
	}
	for _, before := range slices.Clone(p.session.line) {
		if before.seq < p.seq {
			s.end(before, ErrSuperseded)
		}
	}
}

// stop ends the generation: nothing is admitted or started any more, and what runs is interrupted.
func (s *scheduler) stop(why error, grace time.Duration) {
	if s.over == nil || errors.Is(s.over, errFenced) {
		s.over = why
	}
	for _, p := range s.places {
		p.unhold()
		if p.phase == running {
			p.attempt.stop(ErrInterrupted, grace)
		}
	}
}

// drain pauses, and returns a channel that is closed once nothing is under way but the excepted turn; nil
// when the scheduler has ended.
func (s *scheduler) drain(except string) <-chan struct{} {
	reached := make(chan struct{})
	if !s.ask(func() {
		s.paused = true
		s.drains = append(s.drains, drain{except: except, reached: reached})
	}) {
		return nil
	}
	return reached
}

// undrain forgets a drain that nobody waits for any more.
func (s *scheduler) undrain(reached <-chan struct{}) {
	s.ask(func() {
		s.drains = slices.DeleteFunc(s.drains, func(d drain) bool { return d.reached == reached })
	})
}

func (s *scheduler) listLanes() []Lane {
	lanes := make([]Lane, 0, len(s.lanes))
	for _, l := range s.lanes {
		view := Lane{
			Name: l.name, Concurrency: l.concurrency,
			Running: l.running, Queued: l.line.Len(), Stuck: l.stuck, Paused: s.pausedLanes[l.name], Ended: l.ends,
		}
		if first := l.line.Front(); first != nil {
			at := fromMicros(first.Value.(*place).createdAt)
			view.OldestQueuedAt = &at
		}
		lanes = append(lanes, view)
	}
	slices.SortFunc(lanes, func(a, b Lane) int { return strings.Compare(a.Name, b.Name) })
	return lanes
}

func (s *scheduler) listActive() []Turn {
	var active []Turn
	for p := range s.underWay {
		if p.phase == running {
			active = append(active, p.attempt.view())
		}
	}
	slices.SortFunc(active, func(a, b Turn) int { return a.StartedAt.Compare(*b.StartedAt) })
	return active
}
