package fsm

// Invariants hold in every situation that the machine can come into. The exploration of the machine checks
// each by its name.
var Invariants = []string{
	InvariantDeadline, InvariantAlternate, InvariantLock, InvariantRelease, InvariantSuccessor, InvariantLanes,
	InvariantAdmission, InvariantStop, InvariantRefusal, InvariantExit, InvariantHops, InvariantPossible, InvariantEnd,
}

// The invariants by their names.
const (
	InvariantDeadline  = "some deadline or outstanding effect in every state but Running and Stopped"
	InvariantAlternate = "start and close alternate"
	InvariantLock      = "the lock is held in every state that serves, closes or hands over"
	InvariantRelease   = "the lock is released in Stopped, unless the exit was forced; then the system releases it"
	InvariantSuccessor = "at most one successor"
	InvariantLanes     = "turns start only while the published snapshot says so: in Running, and in Draining until the successor is prepared"
	InvariantAdmission = "new turns are accepted only while something serves"
	InvariantStop      = "a stop is never lost"
	InvariantRefusal   = "after a stop nothing is held at the gate"
	InvariantExit      = "the exit code matches the path"
	InvariantHops      = "hops are numbered without gaps, and each begins where the last ended"
	InvariantPossible  = "nothing impossible happens"
	InvariantEnd       = "left alone, every situation ends in Running or Stopped; a restart that nothing answers ends after exactly drain_timeout + shutdown_timeout, or what was asked for instead of drain_timeout"
)
