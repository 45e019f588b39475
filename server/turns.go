package server

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gateway/queue"
)

func (s *Server) listTurns(w http.ResponseWriter, r *http.Request, b *Backend) error {
	query := r.URL.Query()
	for name := range query {
		switch name {
		case "session", "lane", "agent", "status", "limit", "before":
		default:
			return unsupported(clip(name), "turns are not narrowed by it. Try: session, lane, agent, status, limit or before")
		}
		if !printable(query.Get(name), maxName) {
			return invalid(name, "invalid_value", "%s must be at most %d printable characters. Try: a shorter one, without line breaks", name, maxName)
		}
	}
	limit, err := count(query, "limit", 1, maxPage, defaultPage)
	if err != nil {
		return err
	}
	f := queue.Filter{
		Session: query.Get("session"), Lane: query.Get("lane"), Agent: query.Get("agent"),
		Before: query.Get("before"), Limit: int(limit), Bytes: maxPageBytes,
	}
	if list := query.Get("status"); list != "" {
		for name := range strings.SplitSeq(list, ",") {
			status := queue.Status(name)
			if status != queue.Queued && status != queue.Running && !status.Final() {
				return invalid("status", "invalid_value", "there is no status %q. Try: queued, running, completed, failed, cancelled", clip(name))
			}
			f.Status = append(f.Status, status)
		}
	}
	page := struct {
		Turns   []shownTurn `json:"turns"`
		HasMore bool        `json:"has_more"`
	}{}
	found, err := b.Queue.Turns(r.Context(), f)
	if err != nil {
		return err
	}
	if page.Turns = shown(b, found...); f.Full(found) {
		f.Before, f.Limit = found[len(found)-1].ID, 1
		next, err := b.Queue.Turns(r.Context(), f)
		if err != nil {
			return err
		}
		page.HasMore = len(next) > 0
	}
	return reply(w, http.StatusOK, page)
}

func (s *Server) showTurn(w http.ResponseWriter, r *http.Request, b *Backend) error {
	t, err := turnOf(r, b)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, shown(b, t)[0])
}

// shownTurn is a turn, and why it waits.
type shownTurn struct {
	queue.Turn
	Waiting *queue.Place `json:"waiting,omitempty"`
}

func shown(b *Backend, turns ...queue.Turn) []shownTurn {
	var queued []string
	for i := range turns {
		if turns[i].Status == queue.Queued {
			queued = append(queued, turns[i].ID)
		}
	}
	var places map[string]queue.Place
	if len(queued) > 0 {
		places = b.Queue.Places(queued)
	}
	list := make([]shownTurn, len(turns))
	for i, t := range turns {
		list[i].Turn = t
		if place, ok := places[t.ID]; ok {
			list[i].Waiting = &place
		}
	}
	return list
}

func (s *Server) cancelTurn(w http.ResponseWriter, r *http.Request, b *Backend) error {
	t, err := cancel(r, b)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, t)
}

func (s *Server) retryTurn(w http.ResponseWriter, r *http.Request, b *Backend) error {
	id, err := turnID(r)
	if err != nil {
		return err
	}
	t, err := b.Queue.Retry(r.Context(), id)
	if errors.Is(err, queue.ErrNotFound) {
		return noSuchTurn(id)
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, t)
}

// deleteTurn forgets a turn that has ended, and answers with what it was.
func (s *Server) deleteTurn(w http.ResponseWriter, r *http.Request, b *Backend) error {
	t, err := forget(r, b)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, t)
}

// turnEvents returns the turn's log after a sequence: what is there now as JSON, or that and all that
// comes as a stream.
func (s *Server) turnEvents(w http.ResponseWriter, r *http.Request, b *Backend) error {
	after, err := resumeAfter(r)
	if err != nil {
		return err
	}
	t, err := turnOf(r, b)
	if err != nil {
		return err
	}
	if acceptsEvents(r) {
		if t.Status.Final() && after >= t.LastEvent {
			w.WriteHeader(http.StatusNoContent) // tells a browser's EventSource not to come back
			return nil
		}
		return s.streamEvents(w, r, b, t.ID, after)
	}
	list := struct {
		Events []queue.Event `json:"events"`
	}{Events: []queue.Event{}}
	if after < t.LastEvent {
		for event, err := range b.Queue.Follow(r.Context(), t.ID, after) {
			if err != nil {
				return err
			}
			list.Events = append(list.Events, event)
			if event.Seq >= t.LastEvent {
				break
			}
		}
	}
	return reply(w, http.StatusOK, list)
}

func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request, b *Backend, id string, after int64) error {
	out := newStream(w)
	last := after
	for u, err := range follow(r.Context(), s.retirement, b.Queue, id, after) {
		switch {
		case err != nil && out.open:
			return errors.Join(s.cutEvents(r, out, err, id, last), out.end())
		case err != nil:
			return err
		case u.event != nil:
			last = u.event.Seq
			err = out.send(string(u.event.Type), strconv.FormatInt(last, 10), u.event)
		case u.waits != nil:
			err = out.send("waiting", "", u.waits)
		default:
			err = out.comment("keep-alive")
		}
		if err = errors.Join(err, out.flush()); err != nil {
			return err
		}
	}
	return out.end()
}

// cutEvents tells why the stream ends early and how to go on.
func (s *Server) cutEvents(r *http.Request, out *stream, err error, id string, last int64) error {
	e, stop := cutShort(&s.opts.Log, r, err, fmt.Sprintf("GET /v1/turns/%s/events?after=%d", id, last))
	if stop != nil {
		if err := out.send("shutdown", "", stop.Notice); err != nil {
			return err
		}
	}
	return out.send("error", "", e.document())
}
