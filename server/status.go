package server

import (
	"time"

	"gateway/fsm"
)

// StatusDocument is the contract of GET /v1/lifecycle and of `gateway status --json`.
type StatusDocument struct {
	State         fsm.State  `json:"state"`
	Since         time.Time  `json:"since"`
	PID           int        `json:"pid"`
	BootID        string     `json:"boot_id"`
	Generation    int        `json:"generation"`
	Address       string     `json:"address"`
	TLS           bool       `json:"tls"`
	StateDir      string     `json:"state_dir"`
	Version       string     `json:"version"`
	RespawnMode   fsm.Mode   `json:"respawn_mode"`
	RespawnReason string     `json:"respawn_reason"`
	Intent        fsm.Intent `json:"intent"`
	// Ready reports whether queued turns are started; it tells the halves of Draining apart.
	Ready     bool          `json:"ready"`
	Deadline  time.Time     `json:"deadline,omitzero"`
	Admission fsm.Admission `json:"admission"`
	Postponed []fsm.Event   `json:"postponed,omitempty"`
	Hop       uint64        `json:"hop"`
	Turns     TurnCounts    `json:"turns"`
	Counters  fsm.Counters  `json:"counters"`
}

// TurnCounts are the turns of this generation by what becomes of them. Stuck ones were abandoned because they ignored
// their end.
type TurnCounts struct {
	Running int `json:"running"`
	Queued  int `json:"queued"`
	Stuck   int `json:"stuck"`
}
