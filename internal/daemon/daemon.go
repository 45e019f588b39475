// Package daemon is the gateway that runs. It wires all rooms, and its effects carry out what the lifecycle in fsm
// decides.
//
// The invariant: what the daemon has opened has one owner at every moment. Effects run one at a time and own it in turn.
// The last one, release, waits for the effect before it, but not for ever: once release has begun, all that was opened is
// its to close, and an effect that hung and comes back closes by itself what it has opened meanwhile (see tenure). The
// instance lock is released after everything that it guards. Where the store is still being opened then, the lock goes
// to whoever waits for that (see storeOpening.tooLate), or to the system with the end of the process. A forced exit
// releases nothing.
package daemon

import (
	"context"
	"crypto/rand"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"gateway/fsm"
	"gateway/internal/child"
	"gateway/internal/config"
	"gateway/internal/handoff"
	"gateway/internal/process"
)

// Daemon is one process's gateway. The zero value is of no use; see [New].
type Daemon struct {
	given
	machine  *fsm.Machine
	tenure   tenure
	folder   folder
	ingress  ingress
	current  atomic.Pointer[generation]
	handover handover
	outside  outside
	failure  error // why the exit code is not 0, for people; written in tenure
}

// given is what a daemon is made of. It does not change.
type given struct {
	Options
	system     system
	executable string
	bootID     string
	log        zerolog.Logger
}

// outside is what watches the gateway and what may send it requests.
type outside struct {
	signals    signals
	permit     process.Authorization
	supervisor *process.Supervisor
	metrics    *metrics
}

// New wires a gateway that has loaded its configuration. It opens nothing and starts nothing.
func New(o Options, loaded config.Loaded, came Arrival) (*Daemon, error) {
	d, err := wire(o, loaded, came, realSystem())
	if err != nil {
		return nil, err
	}
	return d, d.drive(d.effects())
}

// wire makes a daemon without a machine.
func wire(o Options, loaded config.Loaded, came Arrival, system system) (*Daemon, error) {
	executable, err := handoff.Executable(o.Argv[0])
	if err != nil {
		return nil, err
	}
	d := &Daemon{given: given{
		Options: o, system: system, executable: executable, bootID: strings.ToLower(rand.Text()),
		log: newLogger(loaded.Config.Log.Format, o.Err),
	}}
	d.handover.begin(came)
	d.use(loaded)
	d.outside.metrics = newMetrics(d)
	return d, nil
}

// drive makes the machine that runs the effects.
func (d *Daemon) drive(effects map[fsm.Effect]fsm.EffectFunc) error {
	previous, first, err := historyOf(d.handover.inherited)
	if err != nil {
		d.log.Warn().Err(err).Msg("the history of the process image before this one is lost")
	}
	d.machine, err = fsm.New(fsm.Config{
		Table:      fsm.Lifecycle(),
		Effects:    effects,
		Timeouts:   d.timeouts,
		BootID:     d.bootID,
		Previous:   previous,
		First:      first,
		OnHop:      d.recordHop,
		OnDecision: d.outside.metrics.decided,
		LastResort: d.lastResort,
		Log:        d.subsystem("lifecycle"),
	})
	return err
}

// effects has a function for each effect of the table, in a file of its own.
func (d *Daemon) effects() map[fsm.Effect]fsm.EffectFunc {
	return map[fsm.Effect]fsm.EffectFunc{
		fsm.EffectStart:   d.start,
		fsm.EffectOpen:    d.open,
		fsm.EffectDrain:   d.drain,
		fsm.EffectResume:  d.resume,
		fsm.EffectClose:   d.close,
		fsm.EffectRespawn: d.respawn,
		fsm.EffectReset:   d.reset,
		fsm.EffectRelease: d.release,
		fsm.EffectAbandon: d.abandon,
	}
}

// Run runs the gateway until it has stopped or handed over, and returns the exit code of the process. The error
// explains a code that is not 0, and is nil when the log has done so. When ctx ends, the gateway stops. Call it once.
func (d *Daemon) Run(ctx context.Context) (code fsm.ExitCode, err error) {
	d.takeOverEarly()
	d.outside.supervisor = process.NewSupervisor()
	d.outside.signals = d.system.signals(d.signalled, lifecycleSignals()...)
	defer d.outside.signals.Close()
	reaper := child.NewReaper(d.subsystem("child"))
	defer reaper.Close()
	stops := context.AfterFunc(ctx, func() {
		d.machine.Notify(fsm.Request{Event: fsm.Stop, Actor: "gateway", Reason: context.Cause(ctx).Error()})
	})
	defer stops()
	watched, stopWatch := context.WithCancel(context.Background())
	var watchdog sync.WaitGroup
	watchdog.Go(func() { d.attendSupervisor(watched) })
	code = d.machine.Run()
	stopWatch()
	watchdog.Wait()
	d.outside.supervisor.Flush()
	if j := d.folder.journal.Load(); j != nil {
		j.Close()
	}
	d.linger()
	return code, d.why()
}

// fail keeps why the exit code is not 0; the latest reason counts.
func (d *Daemon) fail(err error) {
	d.tenure.mu.Lock()
	defer d.tenure.mu.Unlock()
	d.failure = err
}

func (d *Daemon) why() error {
	d.tenure.mu.Lock()
	defer d.tenure.mu.Unlock()
	return d.failure
}

func (d *Daemon) timeouts() fsm.Timeouts { return d.config().Lifecycle.Timeouts() }

// recordHop keeps the journal, tells the supervisor and measures.
func (d *Daemon) recordHop(h fsm.Hop) {
	d.tellSupervisor(h)
	d.outside.metrics.observe(h)
	if j := d.folder.journal.Load(); j != nil {
		j.Add(h)
	}
}

// lastResort ends the process when the machine itself is stuck.
func (d *Daemon) lastResort(s fsm.Snapshot) {
	d.log.Error().Str("state", string(s.State)).Msg("the lifecycle is stuck; ending the process. Try: report the stacks below")
	_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
	os.Exit(int(fsm.ExitForced))
}

func (d *Daemon) subsystem(name string) zerolog.Logger {
	return d.log.With().Str("subsystem", name).Logger()
}
