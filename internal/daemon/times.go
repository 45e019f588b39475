package daemon

import "time"

const (
	// cancelGrace is how long a cancelled turn has to end before it is abandoned. Turns that are interrupted at the end of
	// a generation have what shares.go gives them.
	cancelGrace = 2500 * time.Millisecond
	// preparedFor is how long the answer of a successor is trusted.
	preparedFor = time.Second
	// backlogTime is how long a retired address is emptied.
	backlogTime = 10 * time.Millisecond
	// lingerTime is how long requests that came by TLS may still wait for their answers once this process has
	// handed over; it is as long as any waits at the gate.
	lingerTime = 15 * time.Minute
	// hopsHandedOver is how much of the history the next gateway is told, while clients wait: the last ten restarts or so.
	// All of it is in lifecycle.jsonl.
	hopsHandedOver = 64
	// restartExpected is what clients are told, as OpenClaw's gateway tells its own.
	restartExpected int64 = 1500
)
