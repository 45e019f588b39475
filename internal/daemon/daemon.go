// Package daemon is the gateway that runs: it wires all rooms, and its effects do what the lifecycle of fsm decides. They
// run one at a time on behalf of the machine.
package daemon

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"gateway/fsm"
	"gateway/internal/agent"
	"gateway/internal/child"
	"gateway/internal/config"
	"gateway/internal/handoff"
	"gateway/internal/process"
	"gateway/internal/statedir"
	"gateway/queue"
	"gateway/server"
)

// daemon is everything that `gateway run` holds together. Its effects run one at a time on behalf of the
// machine, so what only they touch needs no lock; what others read is atomic.
type daemon struct {
	Options

	executable string
	bootID     string
	log        zerolog.Logger

	machine *fsm.Machine
	signals *process.Signals
	permit  process.Authorization

	supervisor *process.Supervisor
	metrics    *metrics

	// Read by anyone.
	loaded    atomic.Pointer[config.Loaded]
	queue     atomic.Pointer[queue.Queue]
	mode      atomic.Pointer[respawnMode]
	address   atomic.Pointer[string]
	activated atomic.Bool                       // the listener belongs to the supervisor, whatever the configuration says
	journal   atomic.Pointer[statedir.Journal]  // nil until the lock is taken: the folder may be another gateway's
	heir      atomic.Pointer[handoff.Successor] // who this process has handed over to

	// Touched by effects only.
	inherited   *handoff.Handover    // until the first start has taken it over
	predecessor *handoff.Predecessor // who hands over to this process, until it has
	forwarded   sync.WaitGroup       // its last connections
	restarted   bool                 // this image or generation comes from a restart
	lock        *statedir.Lock
	lockErr     error         // why the lock of the gateway before this one could not be taken over
	opening     *storeOpening // nil when no store is being opened
	unclaimed   bool          // the files that name the owner of the lock are those of the gateway before this one
	owns        bool          // the lock, the files beside it and the connections are this process's own
	listener    net.Listener
	listens     string       // the configured address that listener serves
	served      bool         // the server knows listener
	retired     net.Listener // the listener before a change of address
	socket      *net.UnixListener
	agents      *agent.Set
	server      *server.Server
	carried     []server.Parked // connections that the next open hands to the server
	successor   *preparation
	hurry       chan time.Duration    // a shorter time for the drain that is under way
	checking    chan struct{}         // holds one while a successor is only asked
	before      statedir.FailedStarts // what counted against this start
	lingers     bool                  // connections are left that could not be handed over
	failure     error                 // why the exit code is not 0, for people
	broken      atomic.Bool           // the server failed on the TCP listener
}

type respawnMode struct {
	handoff.Mode
	why string
}

// newDaemon wires a daemon that has loaded its configuration; run starts it.
func newDaemon(o Options, loaded config.Loaded, inherited *handoff.Handover) (*daemon, error) {
	executable, err := handoff.Executable(o.Argv[0])
	if err != nil {
		return nil, err
	}
	log := newLogger(loaded.Config.Log.Format, o.Err)
	d := &daemon{
		Options: o, executable: executable, bootID: strings.ToLower(rand.Text()), log: log,
		inherited: inherited, restarted: inherited != nil, supervisor: process.NewSupervisor(),
		hurry: make(chan time.Duration, 1), checking: make(chan struct{}, 1),
	}
	d.use(loaded)
	d.inherit()
	d.metrics = newMetrics(d)
	previous, err := historyOf(inherited)
	if err != nil {
		log.Warn().Err(err).Msg("the history of the process image before this one is lost")
	}
	d.machine, err = fsm.New(fsm.Config{
		Table: fsm.Lifecycle(),
		Effects: map[fsm.Effect]fsm.EffectFunc{
			fsm.EffectStart:   d.start,
			fsm.EffectOpen:    d.open,
			fsm.EffectDrain:   d.drain,
			fsm.EffectResume:  d.resume,
			fsm.EffectClose:   d.close,
			fsm.EffectRespawn: d.respawn,
			fsm.EffectReset:   d.reset,
			fsm.EffectRelease: d.release,
			fsm.EffectAbandon: d.abandon,
		},
		Timeouts:   d.timeouts,
		BootID:     d.bootID,
		Previous:   previous,
		OnHop:      d.recordHop,
		OnDecision: d.metrics.decided,
		LastResort: d.lastResort,
		Log:        log.With().Str("subsystem", "lifecycle").Logger(),
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// run owns the machine until it has stopped and returns the process's exit code.
func (d *daemon) run() int {
	d.signals = process.Listen(d.signalled, lifecycleSignals()...)
	defer d.signals.Close()
	reaper := child.NewReaper(d.subsystem("child"))
	defer reaper.Close()
	watched, stopWatch := context.WithCancel(context.Background())
	var watchdog sync.WaitGroup
	watchdog.Go(func() { d.attendSupervisor(watched) })
	code := d.machine.Run()
	stopWatch()
	watchdog.Wait()
	d.supervisor.Flush()
	if j := d.journal.Load(); j != nil {
		j.Close()
	}
	d.linger()
	return code
}

// use puts a configuration in force.
func (d *daemon) use(loaded config.Loaded) {
	d.loaded.Store(&loaded)
	around := handoff.Look()
	around.TLS = loaded.Config.TLS.On()
	mode, why := around.Choose(loaded.Config.Lifecycle.Respawn)
	d.mode.Store(&respawnMode{mode, why})
	if level, err := zerolog.ParseLevel(loaded.Config.Log.Level); err == nil {
		zerolog.SetGlobalLevel(level)
	}
}

func (d *daemon) config() *config.Config { return &d.loaded.Load().Config }

func (d *daemon) timeouts() fsm.Timeouts {
	l := d.config().Lifecycle
	return fsm.Timeouts{
		fsm.StartTimeout: l.StartTimeout, fsm.DrainTimeout: l.DrainTimeout,
		fsm.ShutdownTimeout: l.ShutdownTimeout, fsm.RespawnTimeout: l.RespawnTimeout,
	}
}

// recordHop keeps the journal, tells the supervisor and measures.
func (d *daemon) recordHop(h fsm.Hop) {
	d.tellSupervisor(h)
	d.metrics.observe(h)
	if j := d.journal.Load(); j != nil {
		j.Add(h)
	}
}

// lastResort ends the process when the machine itself is stuck.
func (d *daemon) lastResort(s fsm.Snapshot) {
	d.log.Error().Str("state", string(s.State)).Msg("the lifecycle is stuck; ending the process. Try: report the stacks below")
	_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
	os.Exit(fsm.ExitForced)
}

func (d *daemon) subsystem(name string) zerolog.Logger {
	return d.log.With().Str("subsystem", name).Logger()
}
