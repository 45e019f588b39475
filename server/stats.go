package server

import "sync/atomic"

// Stats is what a server does and has done since its process image began.
type Stats struct {
	// Connections are open by TCP, WebSockets among them; WebSockets are those that have been greeted, by TCP and by the
	// control socket.
	Connections, WebSockets int
	// Held requests wait at the gate.
	Held int
	// Answers by status code; a request whose connection was carried over has none here.
	Answers map[int]uint64
	// SentAway are connections beyond a limit, by its key in the configuration.
	SentAway map[string]uint64
}

// Stats counts.
func (s *Server) Stats() Stats {
	stats := Stats{Connections: s.ingress.Open(), Held: int(s.gate.held.Load()), Answers: s.answers.all(), SentAway: s.ingress.SentAway()}
	stats.WebSockets = s.hub.Clients()
	return stats
}

// answers counts by status code.
type answers [600]atomic.Uint64

func (a *answers) count(status int) {
	if status > 0 && status < len(a) {
		a[status].Add(1)
	}
}

func (a *answers) all() map[int]uint64 {
	all := make(map[int]uint64)
	for status := range a {
		if n := a[status].Load(); n > 0 {
			all[status] = n
		}
	}
	return all
}
