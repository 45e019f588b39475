package fsm

// Condition says when a signal becomes its event. The daemon has one function for each.
type Condition string

// The conditions of the signals.
const (
	Always             Condition = "always"
	ValidConfiguration Condition = "valid configuration"
	Authorised         Condition = "authorised"
)

// Conditions lists the conditions.
var Conditions = []Condition{Always, ValidConfiguration, Authorised}

// SignalSpec is a row of the list of signals. The daemon listens to exactly these.
type SignalSpec struct {
	Name      string
	Event     Event
	Condition Condition
	// Means says what the condition is.
	Means string
	// Else is what happens when the condition does not hold.
	Else string
}

// Signals lists the signals that become events. SIGQUIT keeps Go's stack dump.
func Signals() []SignalSpec {
	return []SignalSpec{
		{"SIGTERM", Stop, Always, "", ""},
		{"SIGINT", Stop, Always, "", ""},
		{"SIGHUP", Restart, ValidConfiguration, "the configuration on disk is valid", "refused, and its errors are logged"},
		{"SIGUSR1", Restart, Authorised, "`gateway restart --authorize-signal` or the API granted one restart less than 5 s ago, or `lifecycle.allow_signal_restart` is true", "refused with a warning"},
	}
}
