package fsm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	looplab "github.com/looplab/fsm"
	"github.com/rs/zerolog"
)

const (
	// historyLength is how many hops are kept in memory.
	historyLength = 256
	// finalWait is how long the last effect waits for the one before it to return.
	finalWait = 3 * time.Second
	// finalTime is how long the last effect has; its context says so.
	finalTime = 3 * time.Second
	// lastResortSlack is how long after a state's last deadline the process is ended from outside of the
	// machine.
	lastResortSlack = 5 * time.Second
)

// Errors of requests and commits.
var (
	// ErrStopped: the machine has reached its final state.
	ErrStopped = errors.New("fsm: stopped")
	// ErrBusy: too many requests wait for a decision.
	ErrBusy = errors.New("fsm: too many requests wait")
	// ErrSuperseded: a stop arrived before the commit, or the state was left.
	ErrSuperseded = errors.New("fsm: superseded")
)

// Config is what a machine needs.
type Config struct {
	// Table is the lifecycle to run, usually [Lifecycle].
	Table Table
	// Effects has a function for each effect of the table.
	Effects map[Effect]EffectFunc
	// Timeouts is asked at each entry of a state, so that a new configuration counts from the next hop.
	Timeouts func() Timeouts
	// BootID names this process image in the history.
	BootID string
	// Previous is the history of the process image before this one, oldest first.
	Previous []Hop
	// First is the number of this machine's first hop; 0 for the one after Previous. Numbers between them belong to hops
	// that the process before this one has yet to make; see [Machine.Recall].
	First uint64
	// OnHop is told each hop in order, before its effect begins. It must not block. Nil tells nobody.
	OnHop func(Hop)
	// OnDecision is told what became of each request. It must not block. Nil tells nobody.
	OnDecision func(Request, Decision)
	// LastResort is called when a state outlived its deadlines by some seconds, so the machine itself must
	// be stuck. It runs outside of the machine and should end the process. Nil does nothing.
	LastResort func(Snapshot)
	Log        zerolog.Logger
}

// EffectFunc is the work of an effect. ctx ends when the state that began it is left, and its deadline is that of the
// state; see [Entry.Deadline]. It returns one of the effect's outcomes, or the zero Outcome where the table lists none.
type EffectFunc func(ctx context.Context, e Entry) Outcome

// Outcome is how an effect ended, or what it reports on its way.
type Outcome struct {
	Event Event
	// Reason goes to the history and the log.
	Reason string
	// Exit is the exit code to remember, one of those that the row lists; 0 for the first of them. With any other the
	// outcome is an impossible event.
	Exit ExitCode
}

// Entry tells an effect what set it off.
type Entry struct {
	Hop Hop
	// Request is the request that is being carried out, the zero value when there is none.
	Request Request
	m       *Machine
	visit   uint64
	until   *deadline
}

// Deadline is when the state ends by itself; zero for never. It is also that of the effect's context. A restart that
// asks for another drain moves it.
func (e Entry) Deadline() time.Time { return e.until.at() }

// Raise posts an outcome that may come at any later time of this generation, such as server_failed.
func (e Entry) Raise(o Outcome) {
	e.m.box.post(mail{outcome: &outcomeMail{Outcome: o, generation: e.Hop.Generation}})
}

// Report posts an event on the way of the effect, one that its row of the table lists, and returns once the machine has
// recorded it. [ErrSuperseded] says that the state was left before.
func (e Entry) Report(ctx context.Context, o Outcome) error {
	recorded := make(chan error, 1)
	if !e.m.box.post(mail{outcome: &outcomeMail{Outcome: o, visit: e.visit, recorded: recorded}}) {
		return ErrSuperseded
	}
	select {
	case err := <-recorded:
		return err
	case <-ctx.Done():
		return ErrSuperseded
	}
}

// Commit runs act on the owner's goroutine as the point of no return: quiesce must stop the sources of
// requests and hand in what they still hold; when a stop waits after that, or the state was left, the
// sources are restored and [ErrSuperseded] is returned, so that a stop is never lost. An error of act is
// returned after the sources were restored. When act returns nil, then is the outcome, at once: nothing can
// come between. act gets the hop that the machine records in that case, and may hand it on.
func (e Entry) Commit(ctx context.Context, quiesce func() (restore func()), act func(Hop) error, then Outcome) error {
	answer := make(chan error, 1)
	if !e.m.box.post(mail{commit: &commitMail{e.visit, quiesce, act, then, answer}}) {
		return ErrSuperseded
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-answer: // the outcome has left the state
		return err
	default:
		return ErrSuperseded // the owner finds the visit over and does not act
	}
}

// Request asks for an event.
type Request struct {
	Event  Event
	Actor  string // who asks: "SIGTERM", "local", "api 10.0.0.7", "api client ci 10.0.0.7"
	Reason string
	// Turn is the turn from inside which the request comes; empty for none.
	Turn string
	// Drain is how long a restart waits for the turns that run, instead of the setting drain_timeout; nil for the
	// setting. A restart that joins one that drains already moves the deadline of that one, to so long from then. Until
	// the successor is prepared a shorter time than the setting does not count.
	Drain *time.Duration
}

// Verdict is what became of a request.
type Verdict string

// The verdicts.
const (
	VerdictAccepted  Verdict = "accepted"  // it moved the machine
	VerdictCoalesced Verdict = "coalesced" // the same is under way or waits already
	VerdictPostponed Verdict = "postponed" // it waits for another state
	VerdictIgnored   Verdict = "ignored"   // it changes nothing
)

// verdict is what becomes of a request that meets a cell of the kind.
func (k Kind) verdict() Verdict {
	switch k {
	case Transition, Internal:
		return VerdictAccepted
	case Coalesced:
		return VerdictCoalesced
	case Postponed:
		return VerdictPostponed
	case Ignored, Impossible:
	}
	return VerdictIgnored
}

// Decision is what became of a request, and why.
type Decision struct {
	Outcome Verdict `json:"outcome"`
	State   State   `json:"state"`
	Message string  `json:"message"`
	// Hop is the sequence of the newest hop after the decision.
	Hop uint64 `json:"hop"`
}

// Machine is a lifecycle that runs. Only the goroutine in Run touches looplab/fsm; everyone else posts
// to its mailbox or reads the published snapshot.
type Machine struct {
	cfg     Config
	states  map[State]StateSpec
	events  map[Event]EventSpec
	effects map[Effect]EffectSpec
	box     *mailbox
	snap    atomic.Pointer[Snapshot]
	history history

	// Owned by Run.
	core       *looplab.FSM
	state      State
	since      time.Time
	visit      uint64 // counts entries of states; outcomes and timers carry it
	generation int
	intent     Intent
	starts     bool    // queued turns are started
	asked      Request // the request whose intent holds; zero when none did it
	exit       ExitCode
	counters   Counters
	ctx        context.Context // of the visit
	cancel     context.CancelCauseFunc
	clock      visitClock
	lastResort *time.Timer
	postponed  []mail
	previous   <-chan struct{} // closed when the latest effect has returned
	done       bool
}

// New checks the table and returns a machine that waits for Run.
func New(cfg Config) (*Machine, error) {
	if err := cfg.Table.Check(); err != nil {
		return nil, err
	}
	m := &Machine{
		cfg:     cfg,
		states:  make(map[State]StateSpec),
		events:  make(map[Event]EventSpec),
		effects: make(map[Effect]EffectSpec),
		box:     newMailbox(),
		state:   cfg.Table.Initial,
		since:   time.Now(),
	}
	m.clock.until = &deadline{}
	for _, s := range cfg.Table.States {
		m.states[s.Name] = s
	}
	for _, e := range cfg.Table.Events {
		m.events[e.Name] = e
	}
	for _, e := range cfg.Table.Effects {
		m.effects[e.Name] = e
		if cfg.Effects[e.Name] == nil {
			return nil, fmt.Errorf("fsm: no function for the effect %s", e.Name)
		}
	}
	m.history.start(cfg.Previous, cfg.First)
	m.core = newCore(cfg.Table, looplab.Callbacks{
		"leave_state": func(_ context.Context, e *looplab.Event) { m.leave(e.Args[0].(*move)) },
		"enter_state": func(_ context.Context, e *looplab.Event) { m.enter(State(e.Dst), e.Args[0].(*move)) },
		"after_event": func(_ context.Context, e *looplab.Event) { m.begin(e.Args[0].(*move)) },
	})
	m.publish()
	return m, nil
}

// newCore builds looplab's machine from the table. There an event leads from one state to one other, so a row with a
// guard is an event of its own. The callbacks only hand work over: they never block, fail or fire an event.
func newCore(t Table, callbacks looplab.Callbacks) *looplab.FSM {
	var events looplab.Events
	for _, c := range t.Cells {
		if c.Kind == Transition {
			events = append(events, looplab.EventDesc{Name: c.Label(), Src: []string{string(c.State)}, Dst: string(c.To)})
		}
	}
	return looplab.NewFSM(string(t.Initial), events, callbacks)
}

// Request posts a request and waits for the owner's decision.
func (m *Machine) Request(ctx context.Context, r Request) (Decision, error) {
	answer := make(chan Decision, 1)
	if !m.box.post(mail{request: &requestMail{r, answer}}) {
		if m.Snapshot().State == m.cfg.Table.Final {
			return Decision{}, ErrStopped
		}
		return Decision{}, ErrBusy
	}
	select {
	case d := <-answer:
		return d, nil
	case <-ctx.Done():
		return Decision{}, fmt.Errorf("fsm: waiting for a decision: %w", context.Cause(ctx))
	}
}

// Ping waits until the owner has read its mailbox up to here. It fails with the context's cause when the
// owner is stuck: a watchdog asks.
func (m *Machine) Ping(ctx context.Context) error {
	pong := make(chan struct{}, 1)
	if !m.box.post(mail{ping: pong}) {
		return ErrStopped
	}
	select {
	case <-pong:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("fsm: the owner does not answer: %w", context.Cause(ctx))
	}
}

// Notify posts a request for whose decision nobody waits, such as a signal; the decision is logged.
func (m *Machine) Notify(r Request) { m.box.post(mail{request: &requestMail{Request: r}}) }
