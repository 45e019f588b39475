package queue

import (
	"context"
	"errors"
	"time"

	"gateway/internal/failpoint"
)

// Store keeps the turns of one generation. It is sealed: its implementations live in this package, below
// the one scheduler. Only the committer calls commit, one batch at a time; reads may come from anywhere.
type Store interface {
	// epoch is the number of the generation that this store was opened for.
	epoch() int64

	// crashed reports that the generation before did not close the store.
	crashed() bool
	// check looks through the whole store: [ErrDamaged] when it finds any damage.
	check(ctx context.Context) error

	// settle ends what older generations left running: back to queued, or failed when maxAttempts starts
	// were counted or the turn says so. pause is how long one that was started so often has to wait.
	settle(maxAttempts int, at time.Time, pause func(attempts int) time.Duration) (settled, error)

	// waiting yields every turn that is open, in the order of acceptance; once settled, all of them wait.
	waiting(yield func(waitingTurn)) error
	// settings yields what was set for lanes and sessions.
	settings(yield func(kind settingKind, name string, s setting)) error

	// commit applies the operations in order as one transaction and returns once they are on disk. An
	// operation that the turn's state does not allow gets its own error and changes nothing; its
	// neighbours go on. When commit itself fails nothing was changed: with errFenced nothing ever will be,
	// with a *rejectedError one operation is to blame, and any other error concerns the whole batch.
	commit(ops []operation) error

	turn(ctx context.Context, id string) (Turn, error)
	// turnByKey finds the newest turn with the key, in the session unless that is empty, among the newest so many.
	turnByKey(ctx context.Context, session, key string, among int) (Turn, error)
	turns(ctx context.Context, f Filter) ([]Turn, error)
	sessions(ctx context.Context, limit int) ([]Session, error)
	// session counts the turns of one session; a session without any has the name alone.
	session(ctx context.Context, name string) (Session, error)
	// keyed finds the turn that was accepted with the key; [ErrNotFound] when there is none.
	keyed(ctx context.Context, session, key string) (Turn, digest, error)
	// history returns the newest completed turns of the session before seq, oldest first.
	history(ctx context.Context, session string, seq int64, limit int) ([]Turn, error)
	events(ctx context.Context, id string, after int64, limit int) ([]Event, error)
	// aged looks at up to limit turns after seq that were accepted before the given time; it returns those
	// that also finished before it, and where to go on (0 at the end).
	aged(ctx context.Context, before time.Time, after int64, limit int) (seqs []int64, next int64, err error)

	// fold brings the log of what was committed into the file, beside commits; foldRest, between two commits, what
	// came meanwhile, so that the next commit begins the log anew. Both return nil without a log.
	fold(ctx context.Context) error
	foldRest() error
	// close folds, if it can. handOver closes for writing alone and leaves the log to the next generation, until
	// letGo, which is idempotent.
	close() error
	handOver() error
	letGo() error
}

// waitingTurn is what the scheduler keeps of a turn that waits.
type waitingTurn struct {
	seq               int64
	id, session, lane string
	createdAt         int64 // microseconds
	notBefore         int64 // microseconds; 0 when it may start at once
	interrupt         bool  // its mode
}

// settingKind is what a setting is for.
type settingKind string

const (
	laneSetting    settingKind = "lane"
	sessionSetting settingKind = "session"
)

// setting is what a person has set for a lane or a session. The zero value is not kept.
type setting struct {
	paused bool
	mode   Mode // of sessions only; empty: the agent's
}

// settled counts what settle did.
type settled struct{ requeued, failed int }

// digest is what has to be equal for two requests with one key to be the same.
type digest [16]byte

// operation is one change of the store. The committer fills in its results, the scheduler reads them. Every switch over
// the operations names all of them: a linter holds it to that.
//
//sumtype:decl
type operation interface{ status() *progress }

// progress is what every operation has.
type progress struct {
	// err says why the operation changed nothing; valid once the scheduler was told.
	err error
	// durable makes the committer try again until it is written.
	durable bool
	// done is closed once the scheduler has taken the result in; nil when nobody waits.
	done chan struct{}
}

func (op *acceptTurn) status() *progress    { return &op.progress }
func (op *startTurn) status() *progress     { return &op.progress }
func (op *appendText) status() *progress    { return &op.progress }
func (op *endTurn) status() *progress       { return &op.progress }
func (op *cancelTurn) status() *progress    { return &op.progress }
func (op *retryTurn) status() *progress     { return &op.progress }
func (op *changeSetting) status() *progress { return &op.progress }
func (op *deleteTurn) status() *progress    { return &op.progress }
func (op *pruneTurns) status() *progress    { return &op.progress }

type (
	// acceptTurn writes a new turn, finds the one that its key named before, or joins one that waits.
	acceptTurn struct {
		progress
		turn    Turn
		digest  digest
		mode    Mode  // when neither the turn nor its session says
		longest int   // bytes of an input that others have joined
		seq     int64 // out
		first   *Turn // out: what the key named before, instead of a new turn
		joined  bool  // out: first is the turn that the input was added to
	}

	// startTurn makes a queued turn running and counts the attempt.
	startTurn struct {
		progress
		place  *place
		seq    int64
		at     time.Time
		queued *Turn // nil: it is read
		turn   Turn  // out
	}

	// appendText adds one delta to the log of a running attempt.
	appendText struct {
		progress
		attempt *attempt
		seq     int64
		number  int // of the attempt
		event   Event
	}

	// endTurn ends a running attempt, for good or until the next one.
	endTurn struct {
		progress
		place  *place
		seq    int64
		number int // of the attempt that ends
		turn   Turn
		events []Event
		event  EventType     // the last of the events
		why    string        // the text of the last event
		pause  time.Duration // before the next attempt
		// abandoned: Run had not returned.
		abandoned bool
		// replaced: another end of the same attempt is written instead of this one.
		replaced bool
	}

	// cancelTurn ends a queued turn.
	cancelTurn struct {
		progress
		place *place
		seq   int64
		at    time.Time
		why   string
		turn  Turn // out
	}

	// retryTurn makes a failed or cancelled turn queued again.
	retryTurn struct {
		progress
		id      string
		session string
		at      time.Time
		turn    Turn // out
		seq     int64
	}

	// changeSetting sets what is not nil.
	changeSetting struct {
		progress
		kind   settingKind
		name   string
		paused *bool
		mode   *Mode
		now    setting // out
	}

	// deleteTurn forgets a turn that is final, with its events and keys.
	deleteTurn struct {
		progress
		id   string
		turn Turn // out
	}

	// pruneTurns forgets turns that finished before a time, with their events and keys.
	pruneTurns struct {
		progress
		seqs   []int64
		before time.Time
		pruned int
	}
)

var (
	// errFenced wraps ErrClosed: for whoever asks, this generation is over.
	errFenced = fencedError{}
	// errRefused: the row is not in the state, epoch and attempt that the operation is about.
	errRefused = errors.New("queue: the turn has changed")
)

type fencedError struct{}

func (fencedError) Error() string { return "queue: fenced: a newer gateway has opened this store" }
func (fencedError) Unwrap() error { return ErrClosed }

// rejectedError names the one operation that the store cannot write, whatever its neighbours do.
type rejectedError struct {
	op  operation
	err error
}

func (e *rejectedError) Error() string { return e.err.Error() }
func (e *rejectedError) Unwrap() error { return e.err }

// now is the time as the store keeps it, so that a turn in memory equals the turn on disk.
func now() time.Time { return fromMicros(failpoint.Now().UnixMicro()) }

func fromMicros(micros int64) time.Time { return time.UnixMicro(micros).UTC() }
