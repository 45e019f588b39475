package queue

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Config is what a queue needs. Every limit must be positive.
type Config struct {
	Runner Runner
	// Lanes maps each lane's name to how many of its sessions may run at once.
	Lanes map[string]int
	// MaxAttempts is how many counted attempts a turn gets before it is failed.
	MaxAttempts int
	// OnInterrupt is the default for turns that do not say.
	OnInterrupt OnInterrupt
	// MaxQueued and MaxQueuedPerSession limit the waiting turns.
	MaxQueued, MaxQueuedPerSession int
	// MaxOutput is the largest output of an attempt, in bytes.
	MaxOutput int
	// Retention is how long finished turns and idempotency keys are kept at least, also while the clock is wrong: see
	// [calendar].
	Retention time.Duration
	// CancelGrace is how long an attempt has to return after its context ended before it is abandoned.
	CancelGrace time.Duration
	// CloseReserve is how much of the time that Close is given remains, after interrupted attempts have ended or were
	// abandoned, for writing down what became of them and for closing the store: at most half of it. 0 is a second.
	CloseReserve time.Duration
	// RetryBackoff is how long a turn waits after its first attempt failed for a reason that may go away; it
	// doubles with every further one, up to a minute.
	RetryBackoff time.Duration
	// MaxInput is how long an input may get that others join, in bytes; see [Collect].
	MaxInput int
	// Ended is told each turn that ran and has ended for good, once that is on disk; it must not wait for anything. nil
	// for nobody.
	Ended func(Turn)
	Log   zerolog.Logger
}

// check says what is missing or out of range.
func (c *Config) check() error {
	if c.Runner == nil {
		return errors.New("queue: no runner")
	}
	if c.OnInterrupt != RetryTurn && c.OnInterrupt != FailTurn {
		return fmt.Errorf("queue: on interrupt %q: want %q or %q", c.OnInterrupt, RetryTurn, FailTurn)
	}
	limits := []struct {
		name  string
		value int64
	}{
		{"max attempts", int64(c.MaxAttempts)},
		{"max queued", int64(c.MaxQueued)},
		{"max queued per session", int64(c.MaxQueuedPerSession)},
		{"max output", int64(c.MaxOutput)},
		{"retention", int64(c.Retention)},
		{"cancel grace", int64(c.CancelGrace)},
		{"retry backoff", int64(c.RetryBackoff)},
		{"max input", int64(c.MaxInput)},
	}
	for _, l := range limits {
		if l.value <= 0 {
			return fmt.Errorf("queue: %s must be positive", l.name)
		}
	}
	for name, n := range c.Lanes {
		if n <= 0 {
			return fmt.Errorf("queue: lane %q: the concurrency must be positive", name)
		}
	}
	return nil
}

// Queue is one generation of lanes over a store. It starts nothing until Resume.
type Queue struct {
	cfg       Config
	store     Store
	hub       *hub
	scheduler *scheduler
	committer *committer

	backgroundCtx context.Context //nolint:containedctx // it is the life of what runs in the background
	endBackground context.CancelFunc
	background    sync.WaitGroup

	closing    sync.Once
	closed     atomic.Bool // nothing may be read any more
	handedOver atomic.Bool // the store holds its log for the next generation
	closeErr   error
}

// Open takes the store at path (created when missing), advances its epoch, settles what an earlier
// generation left running, and loads what waits. Nothing runs before [Queue.Resume]. It refuses a file that
// is not a store, or that a newer version wrote.
func Open(ctx context.Context, path string, cfg Config) (*Queue, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	store, err := openSQLite(ctx, path)
	if err != nil {
		return nil, err
	}
	q, err := open(store, cfg)
	if err != nil {
		return nil, errors.Join(openError(path, err), store.close())
	}
	return q, nil
}

// open starts a generation over a store.
func open(store Store, cfg Config) (*Queue, error) {
	n, err := store.settle(cfg.MaxAttempts, now(), cfg.pauseAfterCrash)
	if err != nil {
		return nil, err
	}
	q := &Queue{cfg: cfg, store: store, hub: newHub()}
	q.scheduler = newScheduler(&q.cfg, store.epoch(), q.hub)
	q.committer = newCommitter(store, cfg.Log, func(batch []operation) {
		q.scheduler.mail.put(func() { q.scheduler.take(batch) })
	})
	q.scheduler.submit = q.committer.submit
	q.scheduler.launch = q.launch
	if err := store.settings(q.scheduler.set); err != nil {
		return nil, err
	}
	if err := store.waiting(q.scheduler.load); err != nil {
		return nil, err
	}
	q.scheduler.publish()
	cfg.Log.Info().Int64("epoch", store.epoch()).Int("queued", q.Stats().Queued).
		Int("requeued", n.requeued).Int("failed", n.failed).Msg("store opened")

	go q.scheduler.run()
	go q.committer.run()
	q.backgroundCtx, q.endBackground = context.WithCancel(context.Background())
	q.background.Go(func() { q.pruneHourly(q.backgroundCtx) })
	if store.crashed() {
		q.background.Go(func() { q.inspect(q.backgroundCtx) })
	}
	return q, nil
}

// launch gives the place the attempt that its durable start allows.
func (q *Queue) launch(p *place, t Turn) {
	ctx, cancel := context.WithCancelCause(context.Background())
	p.attempt = &attempt{
		place: p, runner: q.cfg.Runner, store: q.store, submit: q.committer.submit, log: q.cfg.Log,
		limit: q.cfg.MaxOutput, attempts: q.cfg.MaxAttempts, pauseAfter: q.cfg.pauseAfter,
		ctx: ctx, cancel: cancel, turn: t,
	}
}

// Accept writes the turn down and returns once it is on disk. created is false when no new turn was made: the
// idempotency key named an earlier one, or the input joined one that waits ([Collect]); that one is returned. When ctx ends first its error is returned, and the turn may or
// may not have been accepted: a repeat with the same key is safe.
func (q *Queue) Accept(ctx context.Context, n NewTurn) (t Turn, created bool, err error) {
	op, err := q.newAccept(ctx, n)
	if err != nil {
		return Turn{}, false, err
	}
	if err := q.do(ctx, op, func() { q.scheduler.admit(op) }); err != nil {
		if errors.Is(err, ErrFull) && n.IdempotencyKey != "" {
			return q.acceptedBefore(ctx, op, err)
		}
		return Turn{}, false, err
	}
	if op.first != nil {
		return *op.first, false, nil
	}
	return op.turn, true, nil
}

func (q *Queue) newAccept(ctx context.Context, n NewTurn) (*acceptTurn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if n.Session == "" || n.Lane == "" || n.Agent == "" || n.Input == "" {
		return nil, errors.New("queue: a turn needs a session, a lane, an agent and an input")
	}
	switch n.OnInterrupt {
	case "":
		n.OnInterrupt = q.cfg.OnInterrupt
	case RetryTurn, FailTurn:
	default:
		return nil, fmt.Errorf("queue: on interrupt %q: want %q or %q", n.OnInterrupt, RetryTurn, FailTurn)
	}
	if !n.Mode.Valid() || !n.DefaultMode.Valid() {
		return nil, fmt.Errorf("queue: mode %q: want %q, %q or %q", n.Mode+n.DefaultMode, Followup, Collect, Interrupt)
	}
	return &acceptTurn{
		progress: progress{done: make(chan struct{})},
		mode:     n.DefaultMode, longest: q.cfg.MaxInput,
		turn: Turn{
			Session: n.Session, Lane: n.Lane, Agent: n.Agent, Status: Queued, Input: n.Input,
			IdempotencyKey: n.IdempotencyKey, OnInterrupt: n.OnInterrupt, Mode: n.Mode, Context: n.Context,
		},
		digest: digestOf(n.Agent, n.Input),
	}, nil
}

func digestOf(agent, input string) (d digest) {
	h := sha256.New()
	_, _ = io.WriteString(h, agent)
	_, _ = h.Write([]byte{0})
	_, _ = io.WriteString(h, input)
	var sum [sha256.Size]byte
	copy(d[:], h.Sum(sum[:0]))
	return d
}

// acceptedBefore finds what the key named when there is no room for a new turn; a repeat needs none.
func (q *Queue) acceptedBefore(ctx context.Context, op *acceptTurn, full error) (Turn, bool, error) {
	t, first, err := q.store.keyed(ctx, op.turn.Session, op.turn.IdempotencyKey)
	switch {
	case err != nil:
		return Turn{}, false, full
	case first != op.digest:
		return Turn{}, false, ErrKeyReused
	}
	return t, false, nil
}

// do has the scheduler begin an operation and waits for its result.
func (q *Queue) do(ctx context.Context, op operation, begin func()) error {
	if !q.scheduler.mail.put(begin) {
		return ErrClosed
	}
	p := op.status()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Turn returns the turn as it is on disk.
func (q *Queue) Turn(ctx context.Context, id string) (Turn, error) {
	return read(q, func() (Turn, error) { return q.store.turn(ctx, id) })
}

// newestByKey is how many of the newest turns [Queue.TurnByKey] looks at.
const newestByKey = 10_000

// TurnByKey finds the newest turn that was accepted with the idempotency key, in the session, or in whatever session
// when that is empty, among the newest ten thousand; [ErrNotFound] when there is none. An input that joined another turn
// is not found by its key.
func (q *Queue) TurnByKey(ctx context.Context, session, key string) (Turn, error) {
	return read(q, func() (Turn, error) { return q.store.turnByKey(ctx, session, key, newestByKey) })
}

// read keeps reads off a store that is closed.
func read[T any](q *Queue, f func() (T, error)) (v T, err error) {
	if !q.closed.Load() {
		v, err = f()
		if err == nil || !q.closed.Load() {
			return v, cmp.Or(named(err), err)
		}
	}
	var zero T
	return zero, ErrClosed
}

// Filter narrows [Queue.Turns]. Zero fields do not narrow.
type Filter struct {
	Session, Lane, Agent string
	Status               []Status
	// Before continues a listing: only turns accepted before the one with this id.
	Before string
	// Limit is at most 1000; 0 means 100.
	Limit int
	// Bytes ends a listing early, behind the turn with which the texts of its turns come to this many; their contexts
	// and details, which may be larger than all else, are left out then. 0 is for all of them, as they are.
	Bytes int64
}

func (f Filter) limit() int { return clampLimit(f.Limit) }

// Full reports whether a listing ended because there was no room for further turns, not for want of them.
func (f Filter) Full(found []Turn) bool {
	var texts int64
	for i := range found {
		texts += found[i].texts()
	}
	return len(found) == f.limit() || f.Bytes > 0 && texts >= f.Bytes
}

// texts is how many bytes clients and agents made of it.
func (t *Turn) texts() int64 {
	return int64(len(t.Input) + len(t.Context) + len(t.Output) + len(t.Detail) + len(t.Error))
}

func clampLimit(n int) int {
	if n <= 0 {
		return 100
	}
	return min(n, 1000)
}

// Turns lists turns, newest first.
func (q *Queue) Turns(ctx context.Context, f Filter) ([]Turn, error) {
	return read(q, func() ([]Turn, error) { return q.store.turns(ctx, f) })
}

// Session is one conversation, derived from its turns.
type Session struct {
	Name      string    `json:"session"`
	Queued    int       `json:"queued"`
	Running   int       `json:"running"`
	Turns     int       `json:"turns"`
	UpdatedAt time.Time `json:"updated_at"` // zero when it has no turns
	// Paused and Mode are what was set by [Queue.SetSession]; an empty mode leaves it to the agent.
	Paused bool `json:"paused"`
	Mode   Mode `json:"mode"`
}

// Sessions lists sessions, the most recently used first. The limit is as in [Filter].
func (q *Queue) Sessions(ctx context.Context, limit int) ([]Session, error) {
	return read(q, func() ([]Session, error) { return q.store.sessions(ctx, clampLimit(limit)) })
}

// Cancel ends a turn that waits or runs and returns it once it is final. A turn that is final already is
// returned with [ErrConflict].
func (q *Queue) Cancel(ctx context.Context, id string) (Turn, error) {
	topic, _ := q.hub.watch(id)
	defer q.hub.unwatch(id, topic)
	var op *cancelTurn
	var known bool
	var err error
	if !q.scheduler.ask(func() { op, known, err = q.scheduler.cancel(id) }) {
		return Turn{}, ErrClosed
	}
	switch {
	case err != nil:
		return Turn{}, err
	case !known:
		t, err := q.Turn(ctx, id)
		if err != nil {
			return Turn{}, err
		}
		return t, conflict(t.Status)
	case op != nil:
		select {
		case <-op.done:
			return op.turn, op.err
		case <-ctx.Done():
			return Turn{}, ctx.Err()
		}
	}
	t, err := q.final(ctx, id, topic)
	if err == nil && t.Status != Cancelled {
		err = conflict(t.Status)
	}
	return t, err
}

// Retry puts a failed or cancelled turn back at the head of its session with its attempts at 0. Any other
// turn is returned with [ErrConflict].
func (q *Queue) Retry(ctx context.Context, id string) (Turn, error) {
	t, err := q.Turn(ctx, id)
	if err != nil {
		return Turn{}, err
	}
	op := &retryTurn{progress: progress{done: make(chan struct{})}, id: id, session: t.Session, at: now()}
	if err := q.do(ctx, op, func() { q.scheduler.readmit(op) }); err != nil {
		if errors.Is(err, ErrConflict) {
			return op.turn, err
		}
		return Turn{}, err
	}
	return op.turn, nil
}

// Delete forgets a turn that is final, with its events and its idempotency key, and returns what it was. Any
// other turn is returned with [ErrConflict].
func (q *Queue) Delete(ctx context.Context, id string) (Turn, error) {
	op := &deleteTurn{progress: progress{done: make(chan struct{})}, id: id}
	err := q.do(ctx, op, func() { q.scheduler.write(op) })
	if err == nil || errors.Is(err, ErrConflict) {
		return op.turn, err
	}
	return Turn{}, err
}

// Lane is the state of one lane.
type Lane struct {
	Name        string `json:"lane"`
	Concurrency int    `json:"concurrency"`
	Running     int    `json:"running"`
	Queued      int    `json:"queued"`
	// Stuck counts attempts that were abandoned because they ignored the end of their context.
	Stuck int `json:"stuck"`
	// Paused: nothing starts until it is resumed; see [Queue.PauseLane].
	Paused bool `json:"paused"`
	// OldestQueuedAt is when the turn that has waited longest was accepted; nil when none waits.
	OldestQueuedAt *time.Time `json:"oldest_queued_at"`
	// Ended counts the turns that have ended in this generation.
	Ended LaneEnds `json:"ended"`
}

// LaneEnds counts how turns of a lane ended.
type LaneEnds struct {
	Completed int64 `json:"completed"`
	Failed    int64 `json:"failed"`
	Cancelled int64 `json:"cancelled"`
}

func (e *LaneEnds) count(s Status) {
	switch s {
	case Completed:
		e.Completed++
	case Failed:
		e.Failed++
	case Cancelled:
		e.Cancelled++
	case Queued, Running, absent:
	}
}

// Lanes lists every configured lane, and those that turns of an earlier configuration still wait in, by
// name.
func (q *Queue) Lanes() (lanes []Lane) {
	q.scheduler.look(func() { lanes = q.scheduler.listLanes() })
	return lanes
}

// Stats counts turns in this generation. Epoch is the generation's number in the store.
type Stats struct {
	Running, Queued, Stuck int
	// Refused counts starts and ends that the store refused because the turn had moved on: a newer
	// generation owns it.
	Refused int
	Epoch   int64
	// Damaged: the store was looked through after a crash and is not whole.
	Damaged bool
}

// Crashed reports that the generation before this one did not close the store.
func (q *Queue) Crashed() bool { return q.store.crashed() }

// Stats reads a published snapshot; it never waits for the scheduler.
func (q *Queue) Stats() Stats { return *q.scheduler.snapshot.Load() }

// Active lists the turns that run now, oldest start first: what a drain waits for.
func (q *Queue) Active() (active []Turn) {
	q.scheduler.look(func() { active = q.scheduler.listActive() })
	return active
}

// Resume lets turns start, until [Queue.Drain] or [Queue.Close] stops that. It is idempotent.
func (q *Queue) Resume() { q.scheduler.resume() }

// Drain pauses and returns nil once nothing runs, except the turn named by `except` (the one that asked
// for the restart; empty for none). It returns ctx's cause if that ends first; the queue stays paused.
func (q *Queue) Drain(ctx context.Context, except string) error {
	reached := q.scheduler.drain(except)
	select {
	case <-reached:
		return nil
	case <-q.scheduler.done:
		return ErrClosed
	case <-ctx.Done():
		q.scheduler.undrain(reached)
		return context.Cause(ctx)
	}
}
