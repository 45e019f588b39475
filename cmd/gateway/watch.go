package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"gateway/fsm"
	"gateway/server"
)

// statusChange is a line of `status --watch`, and with --json its contract.
type statusChange struct {
	Time  time.Time `json:"time"`
	State string    `json:"state"` // "not running" when no gateway answers
	// BootID names the process, Generation its restarts in place.
	BootID     string `json:"boot_id,omitempty"`
	Generation int    `json:"generation"`
	// Turns is left out of a state that had passed before it could be asked.
	Turns *server.TurnCounts `json:"turns,omitempty"`
	// Event, Actor and Reason say why the state changed; empty when it did not.
	Event  fsm.Event `json:"event,omitempty"`
	Actor  string    `json:"actor,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

func (c statusChange) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		if err := e.Encode(c); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
		return nil
	}
	if _, err := fmt.Fprintf(w, "%s  %s\n", c.Time.Local().Format(time.DateTime), c.text()); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

// text is the change in words.
func (c statusChange) text() string {
	text := fmt.Sprintf("%-12s", c.State)
	if c.Turns != nil {
		text += fmt.Sprintf("  %d running, %d queued", c.Turns.Running, c.Turns.Queued)
		if c.Turns.Stuck > 0 {
			text += fmt.Sprintf(", %d stuck", c.Turns.Stuck)
		}
	}
	if c.Event != "" {
		text += fmt.Sprintf("  (%s by %s", c.Event, firstLine(c.Actor))
		if c.Reason != "" {
			text += ": " + firstLine(c.Reason)
		}
		text += ")"
	}
	return strings.TrimRight(text, " ")
}

// notRunningState is what a gateway is in that does not answer.
const notRunningState = "not running"

// observer turns what a gateway says of itself, again and again, into what has changed.
type observer struct {
	met    bool // whether anything was seen yet
	absent bool
	boot   string
	hop    uint64
	turns  server.TurnCounts
}

// path asks for the hops that were not seen.
func (o *observer) path() string { return fmt.Sprintf("/v1/lifecycle?after=%d", o.hop) }

// gap reports whether hops are missing in s: another process has begun to count anew.
func (o *observer) gap(s snapshot) bool {
	return o.met && s.BootID != o.boot && o.hop > 0 && (len(s.History) == 0 || s.History[0].Seq != o.hop+1)
}

// see returns what has changed. Of the hops of s those are new that come after the last one seen.
func (o *observer) see(s snapshot, now time.Time) (changes []statusChange) {
	if o.met && !o.absent && s.BootID == o.boot && s.Hop == o.hop && s.Turns == o.turns {
		return nil
	}
	latest := statusChange{Time: now, State: string(s.State), BootID: s.BootID, Generation: s.Generation, Turns: &s.Turns}
	if o.met && (s.BootID != o.boot || s.Hop != o.hop) {
		for _, h := range s.History {
			if h.Seq > s.Hop { // it goes on already
				break
			}
			changes = append(changes, statusChange{
				Time: h.Time, State: string(h.To), BootID: h.BootID, Generation: h.Generation, Event: h.Event, Actor: h.Actor, Reason: h.Reason,
			})
		}
	}
	if n := len(changes); n > 0 && changes[n-1].State == latest.State {
		changes[n-1].Turns = latest.Turns
	} else {
		changes = append(changes, latest)
	}
	o.met, o.absent, o.boot, o.hop, o.turns = true, false, s.BootID, s.Hop, s.Turns
	return changes
}

// miss returns the change to a gateway that does not answer.
func (o *observer) miss(now time.Time) []statusChange {
	if o.absent {
		return nil
	}
	o.met, o.absent = true, true
	return []statusChange{{Time: now, State: notRunningState}}
}

// observe asks the gateway once. The error is one that will not go away by itself.
func (c *client) observe(ctx context.Context, o *observer) ([]statusChange, snapshot, error) {
	var s snapshot
	err := c.call(ctx, http.MethodGet, o.path(), nil, &s, nil)
	if err == nil && o.gap(s) {
		boot := s.BootID
		if s, err = c.snapshot(ctx); err == nil {
			s.History = of(s.History, boot)
		}
	}
	var refused *apiError
	var nobody *absentError
	switch {
	case err == nil:
		return o.see(s, time.Now()), s, nil
	case ctx.Err() != nil:
		return nil, s, context.Cause(ctx)
	case errors.As(err, &nobody):
		return o.miss(time.Now()), s, nil
	case errors.As(err, &refused) && !refused.passing(), !o.met && refused == nil && !cutOff(err):
		return nil, s, err
	}
	return nil, s, nil // it is on its way
}

// of keeps the hops of one process.
func of(hops []hopDocument, boot string) (own []hopDocument) {
	for _, h := range hops {
		if h.BootID == boot {
			own = append(own, h)
		}
	}
	return own
}

// watchStatus tells every change until ctx ends. It waits for a gateway that goes away.
func (c *client) watchStatus(ctx context.Context, tell func(statusChange) error) error {
	o := &observer{}
	for {
		changes, _, err := c.observe(ctx, o)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, change := range changes {
			if err := tell(change); err != nil {
				return err
			}
		}
		if !pause(ctx, watchAgain) {
			return nil
		}
	}
}
