package server

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long a test waits for what must come: it is there to end a test that fails, on however busy a machine.
const patience = time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(whole{m}) }

// whole holds a run of all tests to the description of the API: every success that it tells of, and every
// event, was the answer of a handler in some test.
type whole struct{ *testing.M }

func (w whole) Run() int {
	code := w.M.Run()
	for _, name := range []string{"run", "skip", "bench", "fuzz", "list"} {
		if flag.Lookup("test."+name).Value.String() != "" {
			return code
		}
	}
	if missing := description().Unseen(passedOn...); code == 0 && len(missing) > 0 {
		fmt.Fprintf(os.Stderr, "openapi.yaml tells of answers that no test has seen:\n%s\n", strings.Join(missing, "\n"))
		return 1
	}
	return code
}
