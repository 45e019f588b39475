package fsm

import "fmt"

// ExitCode is the exit code of the process. Scripts and unit files rely on the numbers.
type ExitCode int

// The exit codes. The codes of a row stand in the table; usage never reaches the machine.
const (
	ExitOK         ExitCode = 0
	ExitFailed     ExitCode = 1
	ExitForced     ExitCode = 2
	ExitServer     ExitCode = 3
	ExitUsage      ExitCode = 64
	ExitSupervisor ExitCode = 75
	ExitConfig     ExitCode = 78
)

// ExitSpec is a row of the list of exit codes.
type ExitSpec struct {
	Code          ExitCode
	Name, Meaning string
}

// ExitCodes lists the exit codes in rising order.
func ExitCodes() []ExitSpec {
	return []ExitSpec{
		{ExitOK, "ok", "stopped cleanly, or handed over"},
		{ExitFailed, "failed", "could not start"},
		{ExitForced, "forced", "a deadline of a stop or restart passed"},
		{ExitServer, "server", "the server failed while it served"},
		{ExitUsage, "usage", "wrong usage of the command"},
		{ExitSupervisor, "supervisor", "left to the supervisor, which starts the next process"},
		{ExitConfig, "config", "does not start until a person acts: wrong configuration, already running, or the port is taken"},
	}
}

// String is the name of the code.
func (c ExitCode) String() string {
	for _, spec := range ExitCodes() {
		if spec.Code == c {
			return spec.Name
		}
	}
	return fmt.Sprintf("exit code %d", int(c))
}
