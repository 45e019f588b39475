package server

import (
	"net/http"

	"gateway/queue"
)

func (s *Server) listSessions(w http.ResponseWriter, r *http.Request, b *Backend) error {
	limit, err := count(r.URL.Query(), "limit", 1, maxPage, defaultPage)
	if err != nil {
		return err
	}
	found, err := b.Queue.Sessions(r.Context(), int(limit))
	if err != nil {
		return err
	}
	list := struct {
		Sessions []queue.Session `json:"sessions"`
	}{Sessions: append([]queue.Session{}, found...)}
	return reply(w, http.StatusOK, list)
}

// sessionName is the session that the path names.
func sessionName(r *http.Request) (string, error) {
	name := r.PathValue("session")
	if !printable(name, maxName) {
		return "", invalid("session", "invalid_value", "a session's name is at most %d printable characters. Try: gateway sessions", maxName)
	}
	return name, nil
}

// showSession answers for every name: a session is what its turns and settings make it.
func (s *Server) showSession(w http.ResponseWriter, r *http.Request, b *Backend) error {
	name, err := sessionName(r)
	if err != nil {
		return err
	}
	found, err := b.Queue.Session(r.Context(), name)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, found)
}

// changeSession sets what the document names: paused, and the mode of the turns to come.
func (s *Server) changeSession(w http.ResponseWriter, r *http.Request, b *Backend) error {
	name, err := sessionName(r)
	if err != nil {
		return err
	}
	var change queue.SessionChange
	if err := readSmall(w, r, into("paused", &change.Paused), into("mode", &change.Mode)); err != nil {
		return err
	}
	if change.Mode != nil && !change.Mode.Valid() {
		return invalid("mode", "invalid_value", "there is no mode %q. Try: followup, collect, interrupt, or empty for the agent's", clip(string(*change.Mode)))
	}
	if change.Paused == nil && change.Mode == nil {
		return invalid("", "nothing_to_change", `nothing is to be changed. Try: {"paused": true} or {"mode": "collect"}`)
	}
	changed, err := b.Queue.SetSession(r.Context(), name, change)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, changed)
}
