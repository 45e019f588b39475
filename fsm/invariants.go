package fsm

import "slices"

// Situation is a machine while everything in it waits, and what its effects have done so far.
type Situation struct {
	Snapshot
	// Hops are all that were recorded, oldest first.
	Hops []Hop
	// Stopping: a stop was accepted.
	Stopping bool
	// Busy: an effect has begun and not returned. Late: something is still being opened that the last effect has not
	// waited for.
	Busy, Late bool
	// Lock: this process has the instance lock. Open: its store or one of its listeners is open. Serving: clients can
	// reach the open store. Twice: a store was opened while another one was open. Lanes: queued turns are started.
	Lock, Open, Serving, Twice, Lanes bool
	// Successors are the processes that were started to take over, and have neither ended nor taken over.
	Successors int
}

// Invariant is true in every situation that the machine can come into.
type Invariant struct {
	Name string
	// Holds is nil for [InvariantEnd], which is about what becomes of a situation.
	Holds func(Situation) bool
}

// Invariants are checked by name in two explorations: of the machine with a model of its effects, and of the daemon with
// its real ones.
var Invariants = []Invariant{
	{InvariantDeadline, func(s Situation) bool {
		return s.State == Running || s.State == Stopped || !s.Deadline.IsZero() || s.Busy
	}},
	{InvariantAlternate, func(s Situation) bool { return !s.Twice }},
	{InvariantLock, func(s Situation) bool { return s.Lock || !s.Open }},
	{InvariantRelease, func(s Situation) bool { return s.State != Stopped || !s.Lock || s.Exit == ExitForced || s.Late }},
	{InvariantSuccessor, func(s Situation) bool { return s.Successors <= 1 }},
	{InvariantLanes, func(s Situation) bool { return !s.Lanes || s.Ready || s.State == Stopped && s.Exit == ExitForced }},
	{InvariantAdmission, func(s Situation) bool { return s.Admission != Open || s.Serving }},
	{InvariantStop, func(s Situation) bool { return !s.Stopping || s.State == ShuttingDown || s.State == Stopped }},
	{InvariantRefusal, func(s Situation) bool { return !s.Stopping || s.Admission == Refused }},
	{InvariantExit, Situation.exits},
	{InvariantHops, Situation.chained},
	{InvariantPossible, func(s Situation) bool { return s.Counters.Impossible == 0 }},
	{InvariantEnd, nil},
}

// Broken is the name of an invariant that does not hold; empty when all hold.
func (s Situation) Broken() string {
	for _, inv := range Invariants {
		if inv.Holds != nil && !inv.Holds(s) {
			return inv.Name
		}
	}
	return ""
}

func (s Situation) exits() bool {
	if s.State != Stopped {
		return true
	}
	allowed := []ExitCode{ExitOK}
	for _, h := range s.Hops {
		switch h.Event { //nolint:exhaustive // the events that decide it
		case StartFailed:
			allowed = []ExitCode{ExitFailed, ExitConfig}
		case ForceExit:
			allowed = []ExitCode{ExitForced}
		case ServerFailed:
			allowed = []ExitCode{ExitServer}
		case HandedBack:
			allowed = []ExitCode{ExitSupervisor}
		}
	}
	return slices.Contains(allowed, s.Exit)
}

func (s Situation) chained() bool {
	for i := 1; i < len(s.Hops); i++ {
		if s.Hops[i].Seq != s.Hops[i-1].Seq+1 || s.Hops[i].From != s.Hops[i-1].To {
			return false
		}
	}
	return true
}

// The invariants by their names.
const (
	InvariantDeadline  = "some deadline or outstanding effect in every state but Running and Stopped"
	InvariantAlternate = "start and close alternate"
	InvariantLock      = "the lock is held in every state that serves, closes or hands over"
	InvariantRelease   = "the lock is released in Stopped, unless the exit was forced or something is still being opened; then the system releases it"
	InvariantSuccessor = "at most one successor"
	InvariantLanes     = "turns start only while the published snapshot says so: in Running, and in Draining until the successor is prepared"
	InvariantAdmission = "new turns are accepted only while something serves"
	InvariantStop      = "a stop is never lost"
	InvariantRefusal   = "after a stop nothing is held at the gate"
	InvariantExit      = "the exit code matches the path"
	InvariantHops      = "hops are numbered without gaps, and each begins where the last ended"
	InvariantPossible  = "nothing impossible happens"
	InvariantEnd       = "left alone, every situation ends in Running or Stopped; a restart that nothing answers ends after exactly drain_timeout + shutdown_timeout, or what was asked for instead of drain_timeout"
)
