// Package failpoint marks the moments at which a process may be made to die or to stop, so that tests can
// try each of them, and is where tests set the clock. Without the build tag `failpoints` a mark does nothing and
// costs nothing, and the clock is the system's.
package failpoint

// Env names the moment and what happens there: "successor.ready=kill" or "successor.ready=stop". A file
// named by EnvOnce is removed when it happens, and without that file nothing does: once in all processes.
const (
	Env     = "GATEWAY_TEST_FAILPOINT"
	EnvOnce = "GATEWAY_TEST_FAILPOINT_ONCE"
)

// EnvClock names a file with a duration by which the wall clock is ahead, read at each look. EnvHour is how long an
// hour lasts for what happens hourly.
const (
	EnvClock = "GATEWAY_TEST_CLOCK_OFFSET"
	EnvHour  = "GATEWAY_TEST_HOUR"
)
