package openai

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"gateway/queue"
	"gateway/server/api"
)

// transcript turns the log of a turn into the events of a response's stream. It depends on nothing but
// the turn's acceptance and the log, so that an event has the same number and the same content on every
// connection and after every restart: that is what makes starting_after exact.
//
//	accepted      response.created (number 0)
//	started       response.in_progress (at the first)
//	delta         response.output_item.added and response.content_part.added (at the first of an attempt),
//	              response.output_text.delta
//	interrupted   response.output_item.done if one was open, the item incomplete; its text is void
//	completed     response.output_text.done, response.content_part.done, response.output_item.done; for each call of
//	              a tool response.output_item.added, response.function_call_arguments.delta and .done,
//	              response.output_item.done; response.completed, or response.incomplete when it was cut short
//	failed        response.output_item.done if one was open, the item incomplete; response.failed
//	cancelled     the same with response.incomplete
//	requeued      response.queued: the turn was brought back after it had ended
type transcript struct {
	turn    queue.Turn // as the events so far made it
	next    int64      // the number of the next event
	index   int        // of the open item, else of the next one
	open    bool
	started bool
	text    strings.Builder
}

// responseEvent is one event of a response's stream.
type responseEvent struct {
	kind     string
	number   int64
	document any
}

// The documents of the events. Every one begins with its type and number.
type (
	eventHead struct {
		Type           string `json:"type"`
		SequenceNumber int64  `json:"sequence_number"`
	}
	responseSnapshot struct {
		eventHead
		Response response `json:"response"`
	}
	itemEvent struct {
		eventHead
		OutputIndex int `json:"output_index"`
		Item        any `json:"item"`
	}
	argumentsEvent struct {
		eventHead
		ItemID      string  `json:"item_id"`
		OutputIndex int     `json:"output_index"`
		Delta       *string `json:"delta,omitempty"`
		Name        string  `json:"name,omitempty"`
		Arguments   *string `json:"arguments,omitempty"`
	}
	partPlace struct {
		ItemID       string `json:"item_id"`
		OutputIndex  int    `json:"output_index"`
		ContentIndex int    `json:"content_index"`
	}
	partEvent struct {
		eventHead
		partPlace
		Part outputText `json:"part"`
	}
	deltaEvent struct {
		eventHead
		partPlace
		Delta    string     `json:"delta"`
		Logprobs []struct{} `json:"logprobs"`
	}
	textEvent struct {
		eventHead
		partPlace
		Text     string     `json:"text"`
		Logprobs []struct{} `json:"logprobs"`
	}
	errorEvent struct {
		eventHead
		Code    string  `json:"code"`
		Message string  `json:"message"`
		Param   *string `json:"param"`
		// Error repeats it: OpenAI's clients end a stream with an error where they find this member, and
		// take an event of the type "error" without it for one like any other.
		Error api.ErrorBody `json:"error"`
	}
	waitingEvent struct {
		eventHead
		queue.Place
	}
	shutdownEvent struct {
		eventHead
		api.Notice
	}
)

// newTranscript begins with the turn as it was accepted, whatever became of it since.
func newTranscript(t queue.Turn) *transcript {
	t.Status, t.Attempt, t.Output, t.Error = queue.Queued, 0, "", ""
	t.StartedAt, t.FinishedAt, t.LastEvent = nil, nil, 0
	return &transcript{turn: t}
}

// created is the first event of every stream.
func (t *transcript) created() responseEvent { return t.snapshot("response.created") }

// apply returns what a log's entry adds to the stream.
func (t *transcript) apply(e queue.Event) []responseEvent {
	t.turn.LastEvent = e.Seq
	switch e.Type {
	case queue.EventCollected: // has no place in the protocol
	case queue.EventStarted:
		return t.start(e)
	case queue.EventDelta:
		t.text.WriteString(e.Text)
		return append(t.begin(), t.event("response.output_text.delta", func(h eventHead) any {
			return deltaEvent{h, t.place(), e.Text, []struct{}{}}
		}))
	case queue.EventInterrupted:
		t.turn.Status = queue.Queued
		return t.abandon()
	case queue.EventRequeued:
		t.turn.Status, t.turn.Error, t.turn.FinishedAt = queue.Queued, "", nil
		return []responseEvent{t.snapshot("response.queued")}
	case queue.EventCompleted:
		return t.complete(e)
	case queue.EventFailed:
		t.turn.Status, t.turn.Error, t.turn.FinishedAt = queue.Failed, e.Text, &e.At
		return append(t.abandon(), t.snapshot("response.failed"))
	case queue.EventCancelled:
		t.turn.Status, t.turn.Error, t.turn.FinishedAt = queue.Cancelled, e.Text, &e.At
		return append(t.abandon(), t.snapshot("response.incomplete"))
	}
	return nil
}

func (t *transcript) start(e queue.Event) []responseEvent {
	t.turn.Status, t.turn.Attempt, t.turn.StartedAt = queue.Running, e.Attempt, &e.At
	t.text.Reset()
	if t.started {
		return nil
	}
	t.started = true
	return []responseEvent{t.snapshot("response.in_progress")}
}

// begin opens the item of the attempt's text, unless it is open.
func (t *transcript) begin() []responseEvent {
	if t.open {
		return nil
	}
	t.open = true
	return []responseEvent{
		t.event("response.output_item.added", func(h eventHead) any { return itemEvent{h, t.index, itemOf(t.turn, "in_progress")} }),
		t.event("response.content_part.added", func(h eventHead) any { return partEvent{h, t.place(), textPart("")} }),
	}
}

func (t *transcript) complete(e queue.Event) (events []responseEvent) {
	t.turn.Status, t.turn.Output, t.turn.FinishedAt, t.turn.Detail = queue.Completed, t.text.String(), &e.At, e.Detail
	detail := answerOf(e.Detail)
	if t.open || len(detail.ToolCalls) == 0 {
		part := textPart(t.turn.Output)
		events = append(t.begin(),
			t.event("response.output_text.done", func(h eventHead) any { return textEvent{h, t.place(), part.Text, []struct{}{}} }),
			t.event("response.content_part.done", func(h eventHead) any { return partEvent{h, t.place(), part} }),
			t.event("response.output_item.done", func(h eventHead) any {
				return itemEvent{h, t.index, itemOf(t.turn, "completed", part)}
			}))
		t.open = false
		t.index++
	}
	for i := range detail.ToolCalls {
		events = append(events, t.call(callOf(t.turn, detail, i))...)
	}
	if incompleteOf(detail) != "" {
		return append(events, t.snapshot("response.incomplete"))
	}
	return append(events, t.snapshot("response.completed"))
}

func (t *transcript) call(c callItem) []responseEvent {
	begun := c
	begun.Status, begun.Arguments = "in_progress", ""
	events := []responseEvent{
		t.event("response.output_item.added", func(h eventHead) any { return itemEvent{h, t.index, begun} }),
		t.event("response.function_call_arguments.delta", func(h eventHead) any {
			return argumentsEvent{eventHead: h, ItemID: c.ID, OutputIndex: t.index, Delta: &c.Arguments}
		}),
		t.event("response.function_call_arguments.done", func(h eventHead) any {
			return argumentsEvent{eventHead: h, ItemID: c.ID, OutputIndex: t.index, Name: c.Name, Arguments: &c.Arguments}
		}),
		t.event("response.output_item.done", func(h eventHead) any { return itemEvent{h, t.index, c} }),
	}
	t.index++
	return events
}

// abandon closes the open item, if there is one; its text is void.
func (t *transcript) abandon() []responseEvent {
	if !t.open {
		return nil
	}
	part := textPart(t.text.String())
	events := []responseEvent{t.event("response.output_item.done", func(h eventHead) any {
		return itemEvent{h, t.index, itemOf(t.turn, "incomplete", part)}
	})}
	t.open = false
	t.index++
	return events
}

func (t *transcript) event(kind string, document func(eventHead) any) responseEvent {
	number := t.next
	t.next++
	return responseEvent{kind, number, document(eventHead{kind, number})}
}

func (t *transcript) snapshot(kind string) responseEvent {
	return t.event(kind, func(h eventHead) any { return responseSnapshot{h, responseOf(t.turn)} })
}

func (t *transcript) place() partPlace {
	return partPlace{ItemID: itemID(t.turn), OutputIndex: t.index}
}

// streamResponse sends the events with a number greater than after; -1 for all.
func (o *Endpoints) streamResponse(w http.ResponseWriter, r *http.Request, b *api.Backend, t queue.Turn, after int64) error {
	out := api.NewStream(w)
	log := newTranscript(t)
	w.Header().Set(api.TurnHeader, t.ID)
	last := after // the number of the last event that the client has
	send := func(events ...responseEvent) error {
		for _, e := range events {
			if e.number <= last {
				continue
			}
			if err := out.Send(e.kind, "", e.document); err != nil {
				return err
			}
			last = e.number
		}
		return nil
	}
	waiting := []responseEvent{log.created()} // for the first byte
	for u, err := range api.Follow(r.Context(), o.retirement, b.Queue, t.ID, 0) {
		switch {
		case err != nil && out.Open:
			return errors.Join(o.cutResponse(r, out, err, t.ID, last), out.End())
		case err != nil:
			return err
		case u.Event != nil:
			waiting = append(waiting, log.apply(*u.Event)...)
		case u.Waits != nil && !out.Open && r.Method == http.MethodPost:
			continue // until something is written a restart can hold the request
		case u.Waits != nil:
		case out.Open || last >= 0:
			err = out.Comment("keep-alive")
		}
		err = errors.Join(err, send(waiting...))
		waiting = nil
		if u.Waits != nil {
			err = errors.Join(err, out.Send("waiting", "", waitingEvent{eventHead{"waiting", last}, *u.Waits}))
		}
		if err == nil && out.Open {
			err = out.Flush()
		}
		if err != nil {
			return err
		}
	}
	return out.End()
}

// cutResponse tells why the stream ends early and how to go on. Both events carry the number of the last
// one before them, so that a client that resumes after the last number it saw misses none.
func (o *Endpoints) cutResponse(r *http.Request, out *api.Stream, err error, id string, last int64) error {
	e, stop := api.CutShort(&o.log, r, err, fmt.Sprintf("GET /v1/responses/%s?stream=true&starting_after=%d", id, last))
	if stop != nil {
		if err := out.Send("shutdown", "", shutdownEvent{eventHead{"shutdown", last}, stop.Notice}); err != nil {
			return err
		}
	}
	body := e.Document().Error
	return out.Send("error", "", errorEvent{eventHead{"error", last}, body.Code, body.Message, nil, body})
}
