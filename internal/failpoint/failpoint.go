// Package failpoint marks the moments at which a process may be made to die or to stop, so that tests can
// try each of them. Without the build tag `failpoints` a mark does nothing and costs nothing.
package failpoint

// Env names the moment and what happens there: "successor.ready=kill" or "successor.ready=stop". A file
// named by EnvOnce is removed when it happens, and without that file nothing does: once in all processes.
const (
	Env     = "GATEWAY_TEST_FAILPOINT"
	EnvOnce = "GATEWAY_TEST_FAILPOINT_ONCE"
)
