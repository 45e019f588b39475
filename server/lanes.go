package server

import (
	"errors"
	"net/http"
	"strings"

	"gateway/queue"
)

func (s *Server) listLanes(w http.ResponseWriter, _ *http.Request, b *Backend) error {
	list := struct {
		Lanes []queue.Lane `json:"lanes"`
	}{Lanes: append([]queue.Lane{}, b.Queue.Lanes()...)}
	return reply(w, http.StatusOK, list)
}

// changeLane pauses a lane or lets it go on.
func (s *Server) changeLane(w http.ResponseWriter, r *http.Request, b *Backend) error {
	var paused *bool
	if err := readSmall(w, r, into("paused", &paused)); err != nil {
		return err
	}
	if paused == nil {
		return invalid("", "nothing_to_change", `nothing is to be changed. Try: {"paused": true}`)
	}
	changed, err := b.Queue.PauseLane(r.Context(), r.PathValue("lane"), *paused)
	if errors.Is(err, queue.ErrNoLane) {
		return notFound("lane_not_found", "lane", "there is no lane %q. Try: one of "+strings.Join(b.Lanes, ", "), clip(r.PathValue("lane")))
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, changed)
}
