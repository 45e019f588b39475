package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// chatLine is the way between a chat and the gateway. What it begins goes on beside the chat, for as long as its context
// lasts, and reports to the inbox.
type chatLine struct {
	ctx            context.Context //nolint:containedctx // the life of the chat
	c              *client
	session, agent string
	inbox          chan tea.Msg
}

// fromGateway is what the gateway says about a message, known by the turn's id, or by its key until it has one.
type fromGateway struct {
	id, key  string
	accepted bool
	refused  string // why it was not accepted
	afresh   bool   // an attempt begins: the text so far is void
	delta    string
	waits    string
	status   string // final
	why      string
	away     bool // nobody answers; it is tried again
	note     string
}

// listen brings the next report.
func (l chatLine) listen() tea.Msg {
	select {
	case msg := <-l.inbox:
		return msg
	case <-l.ctx.Done():
		return nil
	}
}

func (l chatLine) report(msg fromGateway) {
	select {
	case l.inbox <- msg:
	case <-l.ctx.Done():
	}
}

// untilDone calls f again and again, later each time, until it succeeds or is refused for good.
func (l chatLine) untilDone(who fromGateway, f func() (done bool, err error)) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		done, err := f()
		var refused *apiError
		switch {
		case done || l.ctx.Err() != nil:
			return nil
		case errors.As(err, &refused) && !refused.passing():
			return err
		}
		who.away = true
		l.report(who)
		if !pause(l.ctx, wait) {
			return nil
		}
	}
}

// submit hands a message over, with the same key until the gateway has answered.
func (l chatLine) submit(key, input string) {
	go func() {
		var id string
		err := l.untilDone(fromGateway{key: key}, func() (bool, error) {
			var err error
			id, err = l.c.submit(l.ctx, &sending{session: l.session, agent: l.agent, key: key}, input)
			return err == nil, err
		})
		if err != nil {
			l.report(fromGateway{key: key, refused: err.Error()})
		} else {
			l.report(fromGateway{key: key, id: id, accepted: true})
		}
	}()
}

func (l chatLine) cancel(id string) {
	go func() {
		if err := l.c.call(l.ctx, http.MethodPost, "/v1/turns/"+url.PathEscape(id)+"/cancel", nil, nil, nil); err != nil {
			l.report(fromGateway{id: id, note: "it could not be cancelled: " + err.Error()})
		}
	}()
}

// follow reports the turn's events to its end, each once, across any number of connections.
func (l chatLine) follow(id string) {
	go func() {
		f := &follower{id: id, last: -1, report: l.report}
		err := l.untilDone(fromGateway{id: id}, func() (bool, error) {
			err := l.c.readStream(l.ctx, id, f.last, f.take)
			return f.ended, err
		})
		if err != nil {
			l.report(fromGateway{id: id, status: "lost", why: err.Error()})
		}
	}()
}

// follower turns the events of a response into reports.
type follower struct {
	id     string
	last   int // the number of the last event taken; -1 for none
	ended  bool
	report func(fromGateway)
}

func (f *follower) take(kind, data string) error {
	var e struct {
		Number   int    `json:"sequence_number"`
		Delta    string `json:"delta"`
		Reason   string `json:"reason"`
		Response struct {
			Error struct {
				Message string `json:"message"`
			} `json:"error"`
			Incomplete struct {
				Reason string `json:"reason"`
			} `json:"incomplete_details"`
			Status string `json:"status"`
		} `json:"response"`
	}
	if json.Unmarshal([]byte(data), &e) != nil {
		return nil // a later version's, or torn: the numbers say what is missing
	}
	switch kind {
	case "waiting":
		f.report(fromGateway{id: f.id, waits: e.Reason})
		return nil
	case "shutdown":
		f.report(fromGateway{id: f.id, away: true})
		return nil
	case "error":
		return nil // the stream ends here but the turn does not
	}
	if e.Number <= f.last {
		return nil // it was taken on another connection
	}
	f.last = e.Number
	switch kind {
	case "response.output_item.added":
		f.report(fromGateway{id: f.id, afresh: true})
	case "response.output_text.delta":
		f.report(fromGateway{id: f.id, delta: e.Delta})
	case "response.completed", "response.failed", "response.incomplete":
		f.ended = true
		status := strings.TrimPrefix(kind, "response.")
		if e.Response.Status == "cancelled" || e.Response.Incomplete.Reason == "cancelled" {
			status = "cancelled"
		}
		f.report(fromGateway{id: f.id, status: status, why: e.Response.Error.Message + e.Response.Incomplete.Reason})
	default:
		f.report(fromGateway{id: f.id}) // it answers
	}
	return nil
}
