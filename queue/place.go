package queue

import (
	"fmt"
	"slices"
	"time"
)

// Place says why a turn waits.
type Place struct {
	// Ahead is how many turns of its session come before it, the one that runs included.
	Ahead int `json:"ahead"`
	// Reason is for people.
	Reason string `json:"reason"`
	// Since is when the turn was accepted.
	Since time.Time `json:"since"`
}

// Place returns where a turn waits; false when it does not wait.
func (q *Queue) Place(id string) (place Place, waits bool) {
	q.scheduler.look(func() { place, waits = q.scheduler.place(id) })
	return place, waits
}

// Places is [Queue.Place] for many turns at once. Those that do not wait are not among the answers.
func (q *Queue) Places(ids []string) map[string]Place {
	places := make(map[string]Place)
	q.scheduler.look(func() {
		for _, id := range ids {
			if place, waits := q.scheduler.place(id); waits {
				places[id] = place
			}
		}
	})
	return places
}

func (s *scheduler) place(id string) (Place, bool) {
	p, ok := s.places[id]
	if !ok || p.phase != waiting {
		return Place{}, false
	}
	ahead, _ := slices.BinarySearchFunc(p.session.line, p.seq, bySeq)
	if p.session.current != nil {
		ahead++
	}
	return Place{Ahead: ahead, Reason: s.why(p, ahead), Since: fromMicros(p.createdAt)}, true
}

func (s *scheduler) why(p *place, ahead int) string {
	switch {
	case s.paused || s.over != nil:
		return "the gateway starts no turns now"
	case p.session.paused:
		return "its session is paused"
	case s.pausedLanes[p.lane.name]:
		return fmt.Sprintf("the lane %s is paused", p.lane.name)
	case ahead == 1:
		return "1 turn of its session is before it"
	case ahead > 1:
		return fmt.Sprintf("%d turns of its session are before it", ahead)
	case p.backoff != nil:
		return "its last attempt failed; the next one starts soon"
	default:
		return fmt.Sprintf("the lane %s is full: %d of %d run", p.lane.name, p.lane.running, p.lane.concurrency)
	}
}
