package server

import (
	"net/http"

	"gateway/queue"
	"gateway/server/api"
)

func (s *Server) listSessions(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	limit, err := api.QueryInt(r.URL.Query(), "limit", 1, api.MaxPage, api.DefaultPage)
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
	return api.Reply(w, http.StatusOK, list)
}

// sessionName is the session that the path names.
func sessionName(r *http.Request) (string, error) {
	name := r.PathValue("session")
	if !api.Printable(name, api.MaxName) {
		return "", api.Invalid("session", "invalid_value", "a session's name is at most %d printable characters. Try: gateway sessions", api.MaxName)
	}
	return name, nil
}

// showSession answers for every name: a session is what its turns and settings make it.
func (s *Server) showSession(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	name, err := sessionName(r)
	if err != nil {
		return err
	}
	found, err := b.Queue.Session(r.Context(), name)
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, found)
}

// changeSession sets what the document names: paused, and the mode of the turns to come.
func (s *Server) changeSession(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	name, err := sessionName(r)
	if err != nil {
		return err
	}
	var change queue.SessionChange
	if err := api.ReadSmall(w, r, api.Into("paused", &change.Paused), api.Into("mode", &change.Mode)); err != nil {
		return err
	}
	if change.Mode != nil && !change.Mode.Valid() {
		return api.Invalid("mode", "invalid_value", "there is no mode %q. Try: followup, collect, interrupt, or empty for the agent's", api.Clip(string(*change.Mode)))
	}
	if change.Paused == nil && change.Mode == nil {
		return api.Invalid("", "nothing_to_change", `the request changes nothing. Try: {"paused": true} or {"mode": "collect"}`)
	}
	changed, err := b.Queue.SetSession(r.Context(), name, change)
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, changed)
}
