package daemon

import (
	"time"
)

const (
	// closeStep is how long one step of a close may take before the next begins.
	closeStep = 3 * time.Second
	// cancelGrace is how long an interrupted turn has to end.
	cancelGrace = 2500 * time.Millisecond
	// preparedFor is how long the answer of a successor is trusted.
	preparedFor = time.Second
	// backlogTime is how long a retired address is emptied.
	backlogTime = 10 * time.Millisecond
	// never is longer than any drain.
	never = 1000 * time.Hour
	// parkTime is how long answers that are under way may still take before the image is replaced.
	parkTime = time.Second
	// spawnParkTime is the same before a hand-over to a successor, after which they may still end.
	spawnParkTime = 50 * time.Millisecond
	// lingerTime is how long requests that came by TLS may still wait for their answers once this process has
	// handed over; it is as long as any waits at the gate.
	lingerTime = 15 * time.Minute
	// hopsHandedOver is how much of the history the next gateway is told, while clients wait: the last ten restarts or so.
	// All of it is in lifecycle.jsonl.
	hopsHandedOver = 64
	// restartExpected is what clients are told, as OpenClaw's gateway tells its own.
	restartExpected int64 = 1500
)
