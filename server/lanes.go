package server

import (
	"net/http"

	"gateway/queue"
)

func (s *Server) listLanes(w http.ResponseWriter, _ *http.Request, b *Backend) error {
	list := struct {
		Lanes []queue.Lane `json:"lanes"`
	}{Lanes: append([]queue.Lane{}, b.Queue.Lanes()...)}
	return reply(w, http.StatusOK, list)
}
