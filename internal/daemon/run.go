package daemon

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"gateway/fsm"
	"gateway/internal/config"
	"gateway/internal/handoff"
)

// Options are what a gateway is given.
type Options struct {
	// Source is where the configuration comes from, now and at each restart.
	Source config.Source
	// Argv is the command line, which the next image or the successor gets as well.
	Argv []string
	// Version is that of the program.
	Version string
	// Out gets what is printed for people, Err the log.
	Out, Err io.Writer
}

// Main is the whole life of a process that is a gateway, as [Daemon.Run] returns it. A process that a predecessor started
// answers it first, and hears whether it is needed.
func Main(o Options) (code fsm.ExitCode, err error) {
	predecessor, err := handoff.Asked()
	if err != nil {
		return fsm.ExitFailed, err
	}
	if predecessor != nil {
		return runSuccessor(o, predecessor)
	}
	return runDaemon(o)
}

func runDaemon(o Options) (code fsm.ExitCode, err error) {
	collectLater()
	inherited, err := handoff.Inherit()
	if err != nil {
		return fsm.ExitFailed, err
	}
	loaded, err := config.Load(o.Source)
	if err != nil {
		if inherited != nil { // it was valid a moment ago: trying again may help
			return fsm.ExitFailed, err
		}
		return fsm.ExitConfig, err
	}
	d, err := New(o, loaded, Arrival{Inherited: inherited})
	if err != nil {
		return fsm.ExitFailed, err
	}
	return d.Run(context.Background())
}

// While a gateway starts, and requests wait for it, garbage may be left until the heap has 16 MB instead of 4. A start
// that takes longer than usual has much to load, and collects as it goes.
const (
	startingGOGC = 400
	startedAfter = 100 * time.Millisecond
)

// collectLater lets a start do without the garbage collector, unless GOGC says when that is to work.
func collectLater() {
	if os.Getenv("GOGC") == "" {
		usual := debug.SetGCPercent(startingGOGC)
		time.AfterFunc(startedAfter, func() { debug.SetGCPercent(usual) })
	}
}

// runSuccessor says whether this process could take over from the gateway that asks, and does so when it is
// told to. What was checked is what runs.
func runSuccessor(o Options, predecessor *handoff.Predecessor) (code fsm.ExitCode, err error) {
	defer predecessor.Close()
	loaded, err := candidateFor(context.Background(), o.Source, predecessor.Question)
	var warned []string
	if err == nil && predecessor.Warn {
		warned = warnings(loaded)
	}
	if err := predecessor.Answer(o.Version, warned, err); err != nil {
		return fsm.ExitFailed, err
	}
	inherited, err := predecessor.AwaitGo()
	if errors.Is(err, handoff.ErrDismissed) {
		return fsm.ExitOK, nil
	}
	if err != nil {
		predecessor.Failed(err.Error())
		return fsm.ExitFailed, err
	}
	collectLater()
	d, err := New(o, loaded, Arrival{inherited, predecessor})
	if err != nil {
		predecessor.Failed(err.Error())
		return fsm.ExitFailed, err
	}
	return d.Run(context.Background())
}

// newLogger writes for people at a terminal and JSON elsewhere, unless the format says which. The level is
// that of the configuration in force; see use.
func newLogger(format string, w io.Writer) zerolog.Logger {
	f, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(f.Fd()))
	if format == "console" || (format == "auto" && terminal) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != ""}
	}
	zerolog.TimeFieldFormat = time.RFC3339Nano
	return zerolog.New(w).With().Timestamp().Logger()
}
