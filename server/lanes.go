package server

import (
	"errors"
	"net/http"
	"strings"

	"gateway/queue"
	"gateway/server/api"
)

func (s *Server) listLanes(w http.ResponseWriter, _ *http.Request, b *api.Backend) error {
	list := struct {
		Lanes []queue.Lane `json:"lanes"`
	}{Lanes: append([]queue.Lane{}, b.Queue.Lanes()...)}
	return api.Reply(w, http.StatusOK, list)
}

// changeLane pauses a lane or lets it go on.
func (s *Server) changeLane(w http.ResponseWriter, r *http.Request, b *api.Backend) error {
	var paused *bool
	if err := api.ReadSmall(w, r, api.Into("paused", &paused)); err != nil {
		return err
	}
	if paused == nil {
		return api.Invalid("", "nothing_to_change", `the request changes nothing. Try: {"paused": true}`)
	}
	changed, err := b.Queue.PauseLane(r.Context(), r.PathValue("lane"), *paused)
	if errors.Is(err, queue.ErrNoLane) {
		return api.NotFound("lane_not_found", "lane", "there is no lane %q. Try: one of "+strings.Join(b.Lanes, ", "), api.Clip(r.PathValue("lane")))
	}
	if err != nil {
		return err
	}
	return api.Reply(w, http.StatusOK, changed)
}
