package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// TestEachSessionIsALinearizableFIFO lets clients accept, cancel and retry turns in a few sessions at once, while the
// queue dies again and again before or after a commit and is opened again on what is on disk. Everything that they and
// the agents saw is put down with its time, and there must be an order of it in which each session is a [fifo].
func TestEachSessionIsALinearizableFIFO(t *testing.T) {
	const sessions, clients, turns, crashes = 8, 3, 40, 12
	w := &watched{t: t, path: storePath(t), began: time.Now(), ran: make(map[string]int64)}
	w.open()
	var work sync.WaitGroup
	for s := range sessions {
		for c := range clients {
			work.Go(func() {
				for i := range turns {
					w.oneTurn(fmt.Sprint("s", s), fmt.Sprintf("s%d.%d.%d", s, c, i), i)
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { work.Wait(); w.watchers.Wait(); close(done) }()
	crashed := 0
	for over := false; !over; {
		g := w.life.Load()
		select {
		case <-g.dead:
			w.bury(g)
			crashed++
			if crashed == crashes {
				w.immortal = true
			}
			w.open()
		case <-done:
			over = true
		case <-time.After(60 * time.Second):
			t.Fatal("the clients do not end")
		}
	}
	closeQueue(t, w.life.Load().q)
	require.Equal(t, crashes, crashed)
	requireFIFO(t, w.history)
}

// watched is a queue with everything that was seen of it.
type watched struct {
	t        *testing.T
	path     string
	began    time.Time
	life     atomic.Pointer[life]
	immortal bool
	watchers sync.WaitGroup

	mu      sync.Mutex
	history []porcupine.Operation
	ran     map[string]int64 // turn and run → when the agent was done with it
}

// life is one generation of the queue: it dies with its store.
type life struct {
	q      *Queue
	store  *mortal
	dead   chan struct{}
	next   chan struct{} // closed once there is another
	diedAt int64
}

// mortal is a store that dies at a commit: before it, or after it and before anybody is told.
type mortal struct {
	Store
	left  atomic.Int64
	after bool
	die   func()
}

var errGone = errors.New("the process is gone")

func (m *mortal) commit(ops []operation) error {
	left := m.left.Add(-1)
	if left > 0 {
		return m.Store.commit(ops)
	}
	if left == 0 {
		if m.after {
			_ = m.Store.commit(ops)
		}
		m.die()
	}
	return errGone
}

func (w *watched) now() int64 { return int64(time.Since(w.began)) }

func (w *watched) put(m move, answer Status, from int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, porcupine.Operation{Input: m, Output: answer, Call: from, Return: w.now()})
}

func (w *watched) open() {
	before := w.life.Load()
	g := &life{dead: make(chan struct{}), next: make(chan struct{})}
	store, err := openSQLite(w.t.Context(), w.path)
	require.NoError(w.t, err)
	g.store = &mortal{Store: store, after: rand.N(2) == 0}
	g.store.die = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		g.diedAt = w.now()
		close(g.dead)
	}
	g.store.left.Store(1 << 40)
	if !w.immortal {
		g.store.left.Store(5 + rand.Int64N(60))
	}
	cfg := testConfig(w.t, runnerFunc(func(ctx context.Context, work Work) error { return w.run(g, work) }))
	cfg.MaxAttempts = 1000
	cfg.Log = cfg.Log.Level(4) // that the disk is gone is said often
	g.q, err = open(g.store, cfg)
	require.NoError(w.t, err)
	if before != nil {
		w.put(move{kind: "crash"}, "", before.diedAt)
	}
	w.life.Store(g)
	g.q.Resume()
	if before != nil {
		close(before.next)
	}
}

// bury ends what is left of a generation whose store is gone.
func (w *watched) bury(g *life) {
	g.q.committer.giveUp()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(w.t, g.q.Close(ctx))
}

// run is the agent. Those of a process that is gone see and do nothing.
func (w *watched) run(g *life, work Work) error {
	turn := work.Turn
	w.mu.Lock()
	select {
	case <-g.dead:
		w.mu.Unlock()
		return errGone
	default:
	}
	at := w.now()
	// It is the turn of this one from when the queue decided so; it runs once that is on disk. The millisecond is for
	// a wall clock that is being corrected.
	decided := int64(turn.StartedAt.Add(-time.Millisecond).Sub(w.began))
	w.history = append(w.history, porcupine.Operation{
		Input: move{turn.Session, turn.Input, "begin"}, Call: min(decided, at), Return: at,
	})
	w.mu.Unlock()
	err := work.Emit(turn.Input)
	if strings.HasSuffix(turn.Input, "5") && turn.Runs == 1 {
		err = errors.New("not at the first try")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ran[fmt.Sprint(turn.ID, turn.Runs)] = w.now()
	return err
}

// insist does something until a generation lives long enough to answer: what a dead one says is heard by nobody.
func (w *watched) insist(do func(q *Queue) error) (repeated bool, err error) {
	for ; ; repeated = true {
		g := w.life.Load()
		err := do(g.q)
		select {
		case <-g.dead:
		default:
			return repeated, err
		}
		select {
		case <-g.next:
		case <-time.After(time.Minute):
			return repeated, errors.New("there is no next generation")
		}
	}
}

// oneTurn is what a client does with one turn. Every third is cancelled at once, and every other one of those is given
// another try, as is each that failed.
func (w *watched) oneTurn(session, name string, i int) {
	from := w.now()
	var turn Turn
	_, err := w.insist(func(q *Queue) (err error) {
		turn, _, err = q.Accept(context.Background(), NewTurn{Session: session, Lane: "main", Agent: "a", Input: name, IdempotencyKey: name})
		return err
	})
	require.NoError(w.t, err)
	w.put(move{session, name, "accept"}, turn.Status, from)
	if i%3 == 0 {
		if w.cancel(turn) != Cancelled || i%2 == 0 {
			return
		}
		w.retry(turn)
	}
	if i%4 == 0 {
		w.end(turn)
		return
	}
	w.watchers.Go(func() { w.end(turn) })
}

// cancel returns the status that the turn has then; a completed or failed turn has ended before.
func (w *watched) cancel(turn Turn) Status {
	from := w.now()
	var after Turn
	repeated, err := w.insist(func(q *Queue) (err error) {
		after, err = q.Cancel(context.Background(), turn.ID)
		return err
	})
	if errors.Is(err, ErrConflict) && (repeated || after.Status != Cancelled) {
		err = nil
	}
	require.NoError(w.t, err)
	w.put(move{turn.Session, turn.Input, "cancel"}, after.Status, from)
	if after.Status != Cancelled {
		w.ended(after)
	}
	return after.Status
}

// retry brings a turn back that is cancelled or failed. Whoever asks again after a crash may have been heard before.
func (w *watched) retry(turn Turn) {
	from := w.now()
	repeated, err := w.insist(func(q *Queue) error {
		_, err := q.Retry(context.Background(), turn.ID)
		return err
	})
	if errors.Is(err, ErrConflict) && repeated {
		err = nil
	}
	require.NoError(w.t, err)
	w.put(move{turn.Session, turn.Input, "retry"}, Queued, from)
}

// end waits until the turn is completed.
func (w *watched) end(turn Turn) {
	var after Turn
	_, err := w.insist(func(q *Queue) (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		after, err = q.Wait(ctx, turn.ID)
		return err
	})
	require.NoError(w.t, err)
	w.ended(after)
	if after.Status == Failed {
		w.retry(turn)
		w.end(turn)
	}
}

// ended puts down that the agent's last run was the one that counted.
func (w *watched) ended(turn Turn) {
	w.mu.Lock()
	from, ok := w.ran[fmt.Sprint(turn.ID, turn.Runs)]
	w.mu.Unlock()
	require.True(w.t, ok, "%s is %s, and run %d never was", turn.ID, turn.Status, turn.Runs)
	w.put(move{turn.Session, turn.Input, "end"}, turn.Status, from)
}
