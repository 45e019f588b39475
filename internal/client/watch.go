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
	// watchAgain is the time to the next request to a gateway that did not answer.
	watchAgain = 200 * time.Millisecond
	// settleTime is how long a gateway that no longer answers may take to release its lock and to write its last hop,
	// before it counts as not running.
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
	// Turns is nil for a state that had passed before its status was read.
	Turns *server.TurnCounts `json:"turns,omitempty"`
	// Event, Actor and Reason are those of the hop to the state; empty when the state did not change.
	Event  fsm.Event `json:"event,omitempty"`
	Actor  string    `json:"actor,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Sighting is one report of Watch: changes, oldest first, and the current status.
type Sighting struct {
	Changes []StatusChange
	Status  *server.StatusDocument // nil while no gateway answers
}

// Watch calls report with every change of the state and of the numbers of running and queued turns, until ctx ends or
// report returns an error. The first report is the current state. Each hop is reported once, in order, whether it comes as
// an event, in the history of the successor, or only in the journal of the state folder. The journal of a remote gateway
// cannot be read, so its hop to Stopped is not reported. Watch waits for a gateway that no longer answers.
func (c *Client) Watch(ctx context.Context, report func(Sighting) error) error {
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
	o.journalled = nil // hops from before the watch
	for {
		again := emptyPause
		err := c.readStatus(ctx, o, report)
		var refused *APIError
		var nobody *AbsentError
		var ended reportError
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the caller has stopped watching
		case errors.As(err, &ended):
			return ended.error
		case err == nil: // the stream has ended, as in a restart
		case errors.As(err, &nobody):
			again = watchAgain
			free := c.stateDir == "" || !statedir.Owned(c.stateDir)
			if err := journal(); err != nil {
				return err
			}
			if err := report(Sighting{Changes: o.miss(free, time.Now())}); err != nil {
				return err
			}
		case errors.As(err, &refused) && !refused.Passing(), refused == nil && !o.met && !CutOff(err):
			return err
		default: // the gateway is restarting
			again = watchAgain
			if err := report(Sighting{}); err != nil {
				return err
			}
		}
		if !pause(ctx, again) {
			return nil
		}
	}
}

// reportError is an error that report returned, and not an error of the gateway.
type reportError struct{ error }

// readStatus reports what one stream of the gateway's events brings. The end of a stream is not an error. Each stream
// begins with the whole history, because the numbers of hops start again after a stop; the observer finds the new hops.
func (c *Client) readStatus(ctx context.Context, o *observer, report func(Sighting) error) error {
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
		if err := report(seen); err != nil {
			return reportError{err}
		}
	}
	if rest := o.flush(nil); len(rest) > 0 { // hops whose status did not come before the end
		if err := report(Sighting{Changes: rest}); err != nil {
			return reportError{err}
		}
	}
	return nil
}

// observer finds the changes of a gateway and its successors.
type observer struct {
	met        bool              // whether anything was reported yet
	past       uint64            // the number of the last hop before the first status, on the stream that brought it
	last       map[string]uint64 // by boot, the number of the last hop
	boot       string            // the boot that answered last
	state      string            // reported last
	turns      server.TurnCounts // reported last
	pending    []fsm.Hop         // new, and not reported yet
	journalled []fsm.Hop         // new in the journal
	away       time.Time         // when the gateway stopped answering; zero while it answers
}

func newObserver() *observer { return &observer{last: make(map[string]uint64)} }

// fresh reports whether a hop is new, and remembers it. The last hops of a predecessor are not new after its successor has
// answered.
func (o *observer) fresh(h fsm.Hop) bool {
	last, known := o.last[h.BootID]
	if h.To == "" || h.Seq <= last || known && h.BootID != o.boot {
		return false
	}
	o.last[h.BootID] = h.Seq
	return true
}

// read records a line of the journal.
func (o *observer) read(line []byte) {
	var h fsm.Hop
	if json.Unmarshal(line, &h) == nil && o.fresh(h) {
		o.boot = h.BootID
		o.journalled = append(o.journalled, h)
	}
}

// hop records a hop of the stream.
func (o *observer) hop(h fsm.Hop) {
	if h.Seq <= o.past {
		o.last[h.BootID] = max(o.last[h.BootID], h.Seq)
	} else if o.fresh(h) {
		o.boot = h.BootID
		o.pending = append(o.pending, h)
	}
}

// status records the latest status and returns the changes.
func (o *observer) status(s server.StatusDocument, now time.Time) []StatusChange {
	o.away = time.Time{}
	switch last := o.last[s.BootID]; {
	case !o.met: // earlier hops are not changes
		o.last[s.BootID] = max(last, s.Hop)
		o.boot, o.past = s.BootID, s.Hop
	case s.Hop > last:
		return o.flush(nil) // its hop comes next, followed by another status
	case s.Hop < last:
		return nil // an old status
	}
	changes := o.flush(&s)
	if len(changes) > 0 || o.met && o.state == string(s.State) && o.turns == s.Turns {
		return changes
	}
	o.met, o.state, o.turns = true, string(s.State), s.Turns
	return []StatusChange{{Time: now, State: string(s.State), BootID: s.BootID, Generation: s.Generation, Turns: &s.Turns}}
}

// flush returns the hops that were not reported. The last hop led to s, unless s is nil.
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

// miss returns the changes of a gateway that does not answer. free is whether no process holds its lock.
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
