package terminal

import (
	"context"
	"strings"

	tea "charm.land/bubbletea/v2"

	"gateway/internal/client"
)

// chatLine connects a chat to the gateway. Its requests run beside the chat until ctx ends, and report to the inbox.
type chatLine struct {
	ctx            context.Context //nolint:containedctx // the life of the chat
	c              *client.Client
	session, agent string
	inbox          chan tea.Msg
}

// fromGateway is a report about a message, identified by the turn's id, or by the key until the turn has an id.
type fromGateway struct {
	id, key  string
	accepted bool
	refused  string // why it was not accepted
	afresh   bool   // an attempt begins: the text so far is void
	delta    string
	waits    string
	status   string // final
	why      string
	away     bool // the gateway does not answer; the request is retried
	note     string
}

// listen waits for the next report.
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

// patience waits for the gateway until the chat ends, and reports the wait.
func (l chatLine) patience(about fromGateway) client.Patience {
	about.away = true
	return client.Patience{Away: func() { l.report(about) }}
}

// submit sends a message, with the same key in every retry.
func (l chatLine) submit(key, input string) {
	go func() {
		id, err := l.c.Submit(l.ctx, client.Submission{Session: l.session, Agent: l.agent, Key: key, Input: input}, l.patience(fromGateway{key: key}))
		if err != nil {
			l.report(fromGateway{key: key, refused: err.Error()})
		} else {
			l.report(fromGateway{key: key, id: id, accepted: true})
		}
	}()
}

func (l chatLine) cancel(id string) {
	go func() {
		if _, err := l.c.CancelTurn(l.ctx, id); err != nil {
			l.report(fromGateway{id: id, note: "the turn could not be cancelled: " + err.Error()})
		}
	}()
}

// follow reports the turn's events until the last.
func (l chatLine) follow(id string) {
	go func() {
		err := l.c.Follow(l.ctx, id, l.patience(fromGateway{id: id}), func(e client.Event) error {
			l.report(reportOf(id, e))
			return nil
		})
		if err != nil {
			l.report(fromGateway{id: id, status: "lost", why: err.Error()})
		}
	}()
}

// reportOf is the report of an event.
func reportOf(id string, e client.Event) fromGateway {
	report := fromGateway{id: id} // without away: the gateway answers
	switch {
	case e.Kind == client.EventWaiting:
		report.waits = e.Reason
	case e.Kind == client.EventShutdown:
		report.away = true
	case e.Kind == client.EventAttempt:
		report.afresh = true
	case e.Kind == client.EventDelta:
		report.delta = e.Delta
	case e.Last():
		report.status = strings.TrimPrefix(e.Kind, "response.")
		if e.Response.Status == "cancelled" || e.Response.Incomplete.Reason == "cancelled" {
			report.status = "cancelled"
		}
		report.why = e.Response.Error.Message + e.Response.Incomplete.Reason
	}
	return report
}
