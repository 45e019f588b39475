package server

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gateway/queue"
	"gateway/server/api"
)

func (s *Server) listTurns(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	query := r.URL.Query()
	for name := range query {
		switch name {
		case "session", "lane", "agent", "status", "limit", "before":
		default:
			return api.Unsupported(api.Clip(name), "it is not a filter. Try: session, lane, agent, status, limit or before")
		}
		if !api.Printable(query.Get(name), api.MaxName) {
			return api.Invalid(name, "invalid_value", "%s must be at most %d printable characters. Try: a shorter one, without line breaks", name, api.MaxName)
		}
	}
	limit, err := api.QueryInt(query, "limit", 1, api.MaxPage, api.DefaultPage)
	if err != nil {
		return err
	}
	f := queue.Filter{
		Session: query.Get("session"), Lane: query.Get("lane"), Agent: query.Get("agent"),
		Before: query.Get("before"), Limit: int(limit), Bytes: api.MaxPageBytes,
	}
	if list := query.Get("status"); list != "" {
		for name := range strings.SplitSeq(list, ",") {
			status := queue.Status(name)
			if status != queue.Queued && status != queue.Running && !status.Final() {
				return api.Invalid("status", "invalid_value", "there is no status %q. Try: queued, running, completed, failed, cancelled", api.Clip(name))
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
	return api.Reply(w, http.StatusOK, page)
}

func (s *Server) showTurn(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	t, err := api.TurnOf(r, b)
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, shown(b, t)[0])
}

// shownTurn is a turn, and why it waits.
type shownTurn struct {
	queue.Turn
	Waiting *queue.Place `json:"waiting,omitempty"`
}

func shown(b *api.Backend, turns ...queue.Turn) []shownTurn {
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

func (s *Server) cancelTurn(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	t, err := api.CancelTurn(r, b)
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, t)
}

func (s *Server) retryTurn(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	id, err := api.TurnID(r)
	if err != nil {
		return err
	}
	t, err := b.Queue.Retry(r.Context(), id)
	if errors.Is(err, queue.ErrNotFound) {
		return api.NoSuchTurn(id)
	}
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, t)
}

// deleteTurn forgets a turn that has ended, and answers with what it was.
func (s *Server) deleteTurn(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	t, err := api.DeleteTurn(r, b)
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, t)
}

// turnEvents returns the turn's log after a sequence: what is there now as JSON, or that and all that
// comes as a stream.
func (s *Server) turnEvents(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	after, err := api.ResumeAfter(r)
	if err != nil {
		return err
	}
	t, err := api.TurnOf(r, b)
	if err != nil {
		return err
	}
	if api.AcceptsEvents(r) {
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
	return api.Reply(w, http.StatusOK, list)
}

func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request, b *api.Backend, id string, after int64) error {
	out := api.NewStream(w)
	last := after
	for u, err := range api.Follow(r.Context(), s.retirement, b.Queue, id, after) {
		switch {
		case err != nil && out.Open:
			return errors.Join(s.cutEvents(r, out, err, id, last), out.End())
		case err != nil:
			return err
		case u.Event != nil:
			last = u.Event.Seq
			err = out.Send(string(u.Event.Type), strconv.FormatInt(last, 10), u.Event)
		case u.Waits != nil:
			err = out.Send("waiting", "", u.Waits)
		default:
			err = out.Comment("keep-alive")
		}
		if err = errors.Join(err, out.Flush()); err != nil {
			return err
		}
	}
	return out.End()
}

// cutEvents tells why the stream ends early and how to go on.
func (s *Server) cutEvents(r *http.Request, out *api.Stream, err error, id string, last int64) error {
	e, stop := api.CutShort(&s.opts.Log, r, err, fmt.Sprintf("GET /v1/turns/%s/events?after=%d", id, last))
	if stop != nil {
		if err := out.Send("shutdown", "", stop.Notice); err != nil {
			return err
		}
	}
	return out.Send("error", "", e.Document())
}
