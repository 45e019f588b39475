package queue

import (
	"cmp"
	"container/list"
	"slices"
	"time"
)

// phase is how far an open turn has come. What runs is derived from it and from nothing else.
type phase uint8

const (
	waiting    phase = iota // in its session's line
	cancelling              // in the line, its cancellation is being written
	starting                // holds its lane's slot, its start is being written
	running                 // holds its lane's slot, its attempt runs or its end is being written
)

// place is an open turn as the scheduler knows it.
type place struct {
	seq       int64
	id        string
	session   *session
	lane      *lane
	createdAt int64 // microseconds
	phase     phase
	inLane    *list.Element // in lane.line while it waits
	turn      *Turn         // carried along from Accept; nil makes the start read it
	attempt   *attempt      // while it runs
	cancel    *cancelTurn   // while its cancellation is being written
	unwanted  error         // why it was cancelled while its start was being written
	backoff   *time.Timer   // until it may start again; nil when it may
}

// session is a line of turns of which at most one is under way. It exists while it has any.
type session struct {
	name     string
	line     []*place // waiting or cancelling, by seq
	current  *place   // starting or running
	reserved int      // places promised to turns that are being written
	paused   bool
	ready    *list.Element
	readyIn  *lane // whose ready list has the session
}

// lane caps how many of its sessions are under way.
type lane struct {
	name        string
	concurrency int
	configured  bool
	running     int
	stuck       int
	ends        LaneEnds
	line        list.List // of *place: waiting in this lane, by seq
	ready       list.List // of *session: may start as soon as the lane has room, first come first served
}

func bySeq(p *place, seq int64) int { return cmp.Compare(p.seq, seq) }

// enter puts the place in line, in the order of acceptance: a turn that comes back was accepted before
// all that have not started, so it is at the head again.
func (p *place) enter() {
	p.phase = waiting
	at, _ := slices.BinarySearchFunc(p.session.line, p.seq, bySeq)
	p.session.line = slices.Insert(p.session.line, at, p)
	before := p.lane.line.Back()
	for before != nil && before.Value.(*place).seq > p.seq {
		before = before.Prev()
	}
	if before == nil {
		p.inLane = p.lane.line.PushFront(p)
	} else {
		p.inLane = p.lane.line.InsertAfter(p, before)
	}
}

// leave takes the place out of its line.
func (p *place) leave() {
	line := p.session.line
	if line[0] == p {
		line[0] = nil
		p.session.line = line[1:]
	} else if at, ok := slices.BinarySearchFunc(line, p.seq, bySeq); ok {
		p.session.line = slices.Delete(line, at, at+1)
	}
	p.lane.line.Remove(p.inLane)
	p.inLane = nil
}

// seat keeps the session in the ready list of its head turn's lane, and in no other.
func (s *session) seat() {
	var in *lane
	if !s.paused && s.current == nil && len(s.line) > 0 && s.line[0].phase == waiting && s.line[0].backoff == nil {
		in = s.line[0].lane
	}
	if in == s.readyIn {
		return
	}
	if s.readyIn != nil {
		s.readyIn.ready.Remove(s.ready)
	}
	s.ready, s.readyIn = nil, in
	if in != nil {
		s.ready = in.ready.PushBack(s)
	}
}

func (s *session) idle() bool { return s.current == nil && len(s.line) == 0 && s.reserved == 0 }

func (l *lane) idle() bool {
	return !l.configured && l.running == 0 && l.line.Len() == 0
}
