package client

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	sse "github.com/tmaxmax/go-sse"

	"gateway/fsm"
	"gateway/internal/statedir"
	"gateway/server"
)

const (
	// watchAgain is the time until a gateway that did not answer is asked again.
	watchAgain = 200 * time.Millisecond
	// settleTime is how long a gateway that does not answer any more may take to release its lock and to write its last
	// hop, before it counts as one that does not run.
	settleTime = time.Second
	// NotRunning is the state of a gateway that does not answer.
	NotRunning = "not running"
)

// StatusChange is a line of `status --watch`, and with --json its contract.
type StatusChange struct {
	Time  time.Time `json:"time"`
	State string    `json:"state"` // NotRunning when no gateway answers
	// BootID names the process, Generation its restarts in place.
	BootID     string `json:"boot_id,omitempty"`
	Generation int    `json:"generation"`
	// Turns is left out of a state that had passed before it could be asked.
	Turns *server.TurnCounts `json:"turns,omitempty"`
	// Event, Actor and Reason are those of the hop to the state; empty when the state did not change.
	Event  fsm.Event `json:"event,omitempty"`
	Actor  string    `json:"actor,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Sighting is what Watch has learned: changes, oldest first, and how the gateway is now.
type Sighting struct {
	Changes []StatusChange
	Status  *server.StatusDocument // nil while no gateway answers
}

// Watch passes every change of the state, and of how many turns run and wait, to tell, until ctx ends or tell returns an
// error. The first one is how the gateway is now. Hops are told by their sequence, each once, whether they come as events,
// in the history of the next process, or only in the journal of the state folder. Of a gateway elsewhere the journal cannot
// be read, and the hop to Stopped is not told. A gateway that goes away is waited for.
func (c *Client) Watch(ctx context.Context, tell func(Sighting) error) error {
	o := newObserver()
	journal := func() error {
		if c.stateDir == "" {
			return nil
		}
		return statedir.ReadJournal(c.stateDir, o.read)
	}
	if err := journal(); err != nil {
		return err
	}
	o.journalled = nil // they were before
	for {
		again := emptyPause
		err := c.readStatus(ctx, o, tell)
		var refused *APIError
		var nobody *AbsentError
		var told tellError
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // whoever watches has stopped
		case errors.As(err, &told):
			return told.error
		case err == nil: // the stream has ended, as in a restart
		case errors.As(err, &nobody):
			again = watchAgain
			free := c.stateDir == "" || !statedir.Owned(c.stateDir)
			if err := journal(); err != nil {
				return err
			}
			if err := tell(Sighting{Changes: o.miss(free, time.Now())}); err != nil {
				return err
			}
		case errors.As(err, &refused) && !refused.Passing(), refused == nil && !o.met && !CutOff(err):
			return err
		default: // it is on its way
			again = watchAgain
			if err := tell(Sighting{}); err != nil {
				return err
			}
		}
		if !pause(ctx, again) {
			return nil
		}
	}
}

// tellError is an error of who is told, and not of the gateway.
type tellError struct{ error }

// readStatus passes on what one stream of the gateway's events brings. A stream that ends is no error. It is asked for the
// whole history each time: the numbers of hops begin anew after a stop, and the observer knows which are new.
func (c *Client) readStatus(ctx context.Context, o *observer, tell func(Sighting) error) error {
	body, err := c.stream(ctx, "/v1/events")
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	o.past = 0
	for e, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: eventLimit}) {
		if err != nil {
			break // cut off
		}
		var seen Sighting
		switch e.Type {
		case "hop":
			var h fsm.Hop
			if err := json.Unmarshal([]byte(e.Data), &h); err != nil {
				return c.unreadable(err)
			}
			o.hop(h)
			continue
		case "status":
			var s server.StatusDocument
			if err := json.Unmarshal([]byte(e.Data), &s); err != nil {
				return c.unreadable(err)
			}
			seen = Sighting{o.status(s, time.Now()), &s}
		default:
			continue
		}
		if err := tell(seen); err != nil {
			return tellError{err}
		}
	}
	if rest := o.flush(nil); len(rest) > 0 { // hops whose status did not come any more
		if err := tell(Sighting{Changes: rest}); err != nil {
			return tellError{err}
		}
	}
	return nil
}

// observer tells what has changed from what it knows of a gateway and its predecessors.
type observer struct {
	met        bool              // whether anything was told yet
	past       uint64            // the number of the last hop before the first status, on the stream that brought it
	last       map[string]uint64 // by boot, the number of the last hop
	boot       string            // which has answered last
	state      string            // which was told last
	turns      server.TurnCounts // which were told last
	pending    []fsm.Hop         // new, and not told yet
	journalled []fsm.Hop         // new in the journal
	away       time.Time         // since when nobody answers; zero while somebody does
}

func newObserver() *observer { return &observer{last: make(map[string]uint64)} }

// fresh reports whether a hop was not seen before, and remembers it. The last hops of a process that is past are not new:
// its successor has answered since.
func (o *observer) fresh(h fsm.Hop) bool {
	last, known := o.last[h.BootID]
	if h.To == "" || h.Seq <= last || known && h.BootID != o.boot {
		return false
	}
	o.last[h.BootID] = h.Seq
	return true
}

// read takes a line of the journal.
func (o *observer) read(line []byte) {
	var h fsm.Hop
	if json.Unmarshal(line, &h) == nil && o.fresh(h) {
		o.boot = h.BootID
		o.journalled = append(o.journalled, h)
	}
}

// hop takes an event.
func (o *observer) hop(h fsm.Hop) {
	if h.Seq <= o.past {
		o.last[h.BootID] = max(o.last[h.BootID], h.Seq)
	} else if o.fresh(h) {
		o.boot = h.BootID
		o.pending = append(o.pending, h)
	}
}

// status takes the latest status and returns what has changed.
func (o *observer) status(s server.StatusDocument, now time.Time) []StatusChange {
	o.away = time.Time{}
	switch last := o.last[s.BootID]; {
	case !o.met: // the hops up to here are past
		o.last[s.BootID] = max(last, s.Hop)
		o.boot, o.past = s.BootID, s.Hop
	case s.Hop > last:
		return o.flush(nil) // its hop comes next, and another status behind it
	case s.Hop < last:
		return nil // it is older than what is known
	}
	changes := o.flush(&s)
	if len(changes) > 0 || o.met && o.state == string(s.State) && o.turns == s.Turns {
		return changes
	}
	o.met, o.state, o.turns = true, string(s.State), s.Turns
	return []StatusChange{{Time: now, State: string(s.State), BootID: s.BootID, Generation: s.Generation, Turns: &s.Turns}}
}

// flush returns the hops that were not told. The last of them has led to s, unless that is nil.
func (o *observer) flush(s *server.StatusDocument) (changes []StatusChange) {
	for _, h := range o.pending {
		changes = append(changes, StatusChange{
			Time: h.Time, State: string(h.To), BootID: h.BootID, Generation: h.Generation, Event: h.Event, Actor: h.Actor, Reason: h.Reason,
		})
		o.state = string(h.To)
	}
	o.pending = nil
	if n := len(changes); n > 0 && s != nil {
		changes[n-1].Turns, o.turns = &s.Turns, s.Turns
	}
	return changes
}

// miss returns what has changed of a gateway that does not answer. Free is whether nothing holds its lock.
func (o *observer) miss(free bool, now time.Time) []StatusChange {
	if o.away.IsZero() {
		o.away = now
	}
	o.pending, o.journalled = append(o.pending, o.journalled...), nil
	changes := o.flush(nil)
	ended := free && o.state == string(fsm.Stopped)
	if o.state == NotRunning || o.met && !ended && now.Sub(o.away) < settleTime {
		return changes
	}
	o.met, o.state = true, NotRunning
	return append(changes, StatusChange{Time: now, State: NotRunning})
}
