package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/rs/xid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// opener opens the same store again and again, each time for a new generation, without closing the one before.
type opener func(t require.TestingT) Store

// stores is every kind of store; each must keep the contract below.
var stores = map[string]func(t *testing.T) opener{
	"sqlite": func(t *testing.T) opener {
		path := storePath(t)
		return func(tt require.TestingT) Store {
			s, err := openSQLite(t.Context(), path)
			require.NoError(tt, err)
			t.Cleanup(func() { _ = s.close() })
			return s
		}
	},
}

// eachStore runs the test with every kind of store.
func eachStore(t *testing.T, test func(t *testing.T, open opener)) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

var contractTime = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

// newTurn is a turn as the scheduler hands it to the store.
func newTurn(session, input string) Turn {
	id := xid.New().String()
	return Turn{
		ID: id, Session: session, Lane: "main", Agent: "echo", Status: Queued, Input: input, IdempotencyKey: id,
		OnInterrupt: RetryTurn, Mode: Followup, CreatedAt: contractTime,
	}
}

func acceptOf(t Turn) *acceptTurn {
	return &acceptTurn{turn: t, digest: digestOf(t.Agent, t.Input), longest: 1000}
}

func commit(t require.TestingT, s Store, ops ...operation) {
	require.NoError(t, s.commit(ops))
}

// accepted writes a turn and returns its number.
func accepted(t *testing.T, s Store, turn Turn) int64 {
	op := acceptOf(turn)
	commit(t, s, op)
	require.NoError(t, op.err)
	return op.seq
}

func stored(t require.TestingT, s Store, id string) Turn {
	turn, err := s.turn(context.Background(), id)
	require.NoError(t, err)
	return turn
}

func TestStoreContract(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, open opener){
		"what is committed is there for the next generation": func(t *testing.T, open opener) {
			s := open(t)
			turn := newTurn("s", "x")
			turn.Context, turn.Mode, turn.OnInterrupt = []byte(`{"a":1}`), Interrupt, FailTurn
			accepted(t, s, turn)
			next := open(t)
			require.Greater(t, next.epoch(), s.epoch())
			require.Equal(t, turn, stored(t, next, turn.ID))
			_, err := next.turn(t.Context(), "nobody")
			require.ErrorIs(t, err, ErrNotFound)
		},
		"turns are numbered in the order of acceptance": func(t *testing.T, open opener) {
			s := open(t)
			var ops []operation
			for i := range 10 {
				ops = append(ops, acceptOf(newTurn(fmt.Sprint(i%3), "x")))
			}
			commit(t, s, ops...)
			last := int64(0)
			for _, op := range ops {
				require.Greater(t, op.(*acceptTurn).seq, last)
				last = op.(*acceptTurn).seq
			}
			var waiting []string
			require.NoError(t, open(t).waiting(func(w waitingTurn) { waiting = append(waiting, w.id) }))
			for i, op := range ops {
				require.Equal(t, op.(*acceptTurn).turn.ID, waiting[i])
			}
		},
		"an operation that is refused changes nothing, and its neighbours go on": func(t *testing.T, open opener) {
			s := open(t)
			a, b := newTurn("a", "x"), newTurn("b", "x")
			seqA, seqB := accepted(t, s, a), accepted(t, s, b)
			first, again, other := &startTurn{seq: seqA, at: contractTime}, &startTurn{seq: seqA, at: contractTime}, &startTurn{seq: seqB, at: contractTime}
			commit(t, s, first, again, other)
			require.NoError(t, first.err)
			require.ErrorIs(t, again.err, errRefused)
			require.NoError(t, other.err)
			require.Equal(t, 1, stored(t, s, a.ID).Attempt)
		},
		"a generation that is over writes nothing any more": func(t *testing.T, open opener) {
			s := open(t)
			turn := newTurn("s", "x")
			seq := accepted(t, s, turn)
			next := open(t)
			for _, op := range []operation{
				acceptOf(newTurn("s", "late")), &startTurn{seq: seq, at: contractTime}, &cancelTurn{seq: seq, at: contractTime},
			} {
				require.ErrorIs(t, s.commit([]operation{op}), errFenced)
			}
			require.Equal(t, turn, stored(t, next, turn.ID))
		},
		"what was left running is requeued or failed, and the log says so": func(t *testing.T, open opener) {
			s := open(t)
			again, never, often := newTurn("a", "x"), newTurn("b", "x"), newTurn("c", "x")
			never.OnInterrupt = FailTurn
			for _, turn := range []Turn{again, never, often} {
				commit(t, s, &startTurn{seq: accepted(t, s, turn), at: contractTime})
			}
			for generation, want := range []settled{{requeued: 2, failed: 1}, {requeued: 1}, {failed: 1}} {
				next := open(t)
				n, err := next.settle(3, contractTime, func(attempts int) time.Duration { return time.Duration(attempts-1) * time.Second })
				require.NoError(t, err)
				require.Equal(t, want, n, "generation %d", generation)
				require.NoError(t, next.waiting(func(w waitingTurn) {
					if w.id == often.ID {
						pause := int64(0)
						if generation > 0 {
							pause = contractTime.Add(time.Duration(generation) * time.Second).UnixMicro()
						}
						require.Equal(t, pause, w.notBefore)
						commit(t, next, &startTurn{seq: w.seq, at: contractTime})
					}
				}))
				s = next
			}
			require.Equal(t, Queued, stored(t, s, again.ID).Status)
			require.Equal(t, Failed, stored(t, s, never.ID).Status)
			require.Equal(t, "interrupted by a crash 3 times", stored(t, s, often.ID).Error)
			requireLog(t, s, often.ID, "1 started 1 ", "2 interrupted 1 interrupted by a crash", "3 started 2 ",
				"4 interrupted 2 interrupted by a crash", "5 started 3 ", "6 failed 3 interrupted by a crash 3 times")
		},
		"a setting changes what it names, and is gone when it is back": func(t *testing.T, open opener) {
			s := open(t)
			yes, no, collect, none := true, false, Collect, Mode("")
			for _, step := range []struct {
				paused *bool
				mode   *Mode
				want   setting
			}{
				{&yes, nil, setting{paused: true}},
				{nil, &collect, setting{true, Collect}},
				{&no, nil, setting{mode: Collect}},
				{nil, &none, setting{}},
			} {
				op := &changeSetting{kind: sessionSetting, name: "s", paused: step.paused, mode: step.mode}
				commit(t, s, op)
				require.NoError(t, op.err)
				require.Equal(t, step.want, op.now)
				found := setting{}
				require.NoError(t, open(t).settings(func(kind settingKind, name string, now setting) {
					require.Equal(t, sessionSetting, kind)
					require.Equal(t, "s", name)
					require.NotZero(t, now)
					found = now
				}))
				require.Equal(t, step.want, found)
				s = open(t)
			}
		},
		"what is pruned is gone with its events and its keys": func(t *testing.T, open opener) {
			s := open(t)
			turn := newTurn("s", "x")
			turn.IdempotencyKey, turn.Mode = "first", Collect
			seq := accepted(t, s, turn)
			joins := newTurn("s", "y")
			joins.IdempotencyKey, joins.Mode = "second", Collect
			accepted(t, s, joins)
			open2 := newTurn("s", "z")
			accepted(t, s, open2)
			commit(t, s, &cancelTurn{seq: seq, at: contractTime, why: "test"})
			seqs, _, err := s.aged(t.Context(), contractTime.Add(time.Second), 0, 10)
			require.NoError(t, err)
			require.Equal(t, []int64{seq}, seqs, "what waits is never old")
			op := &pruneTurns{seqs: seqs, before: contractTime.Add(time.Second)}
			commit(t, s, op)
			require.Equal(t, 1, op.pruned)
			for _, key := range []string{"first", "second"} {
				_, _, err := s.keyed(t.Context(), "s", key)
				require.ErrorIs(t, err, ErrNotFound, key)
			}
			requireLog(t, s, turn.ID)
			require.Equal(t, Queued, stored(t, s, open2.ID).Status)
		},
	} {
		t.Run(name, func(t *testing.T) { eachStore(t, test) })
	}
}

func requireLog(t require.TestingT, s Store, id string, want ...string) {
	events, err := s.events(context.Background(), id, 0, 1000)
	require.NoError(t, err)
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%d %s %d %s", e.Seq, e.Type, e.Attempt, e.Text))
	}
	require.Equal(t, want, got)
}

// TestStoreEqualsItsModel has random batches written to the store and to a model of it in plain Go, by several
// generations, and compares every result and everything that can be read.
func TestStoreEqualsItsModel(t *testing.T) {
	eachStore(t, func(t *testing.T, _ opener) {
		rapid.Check(t, func(rt *rapid.T) {
			path := storePath(t)
			var open []*sqliteStore
			defer func() {
				for _, s := range open {
					_ = s.close()
				}
			}()
			reopen := func() *sqliteStore {
				s, err := openSQLite(t.Context(), path)
				require.NoError(rt, err)
				open = append(open, s)
				return s
			}
			m, s := &storeModel{}, reopen()
			for range rapid.IntRange(1, 12).Draw(rt, "batches") {
				if rapid.IntRange(0, 9).Draw(rt, "crash") == 0 {
					s = reopen()
					_, err := s.settle(3, contractTime, func(int) time.Duration { return 0 })
					require.NoError(rt, err)
					m.settle(3)
				}
				var ops []operation
				var want []error
				for range rapid.IntRange(1, 5).Draw(rt, "size") {
					op := m.draw(rt)
					ops, want = append(ops, op), append(want, m.apply(op))
				}
				require.NoError(rt, s.commit(ops))
				for i, op := range ops {
					if got := op.status().err; !errors.Is(got, want[i]) || (got == nil) != (want[i] == nil) {
						rt.Fatalf("operation %d, %T: %v, want %v", i, op, got, want[i])
					}
				}
				m.compare(rt, s)
			}
		})
	})
}

// storeModel is what a store is: a list of turns, each with its log.
type storeModel struct {
	turns []*modelTurn
	seq   int64 // of the newest turn that ever was
}

type modelTurn struct {
	Turn
	seq  int64
	log  []Event
	keys map[string]digest
}

func (m *storeModel) find(seq int64) *modelTurn {
	for _, t := range m.turns {
		if t.seq == seq {
			return t
		}
	}
	return nil
}

// draw makes a random operation, as likely as not about a turn that is in no state for it.
func (m *storeModel) draw(rt *rapid.T) operation {
	kind := rapid.SampledFrom([]string{"accept", "accept", "start", "start", "append", "end", "end", "cancel", "retry", "delete"}).Draw(rt, "operation")
	if kind == "accept" || len(m.turns) == 0 {
		turn := newTurn(rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "session"), rapid.SampledFrom([]string{"x", "yy"}).Draw(rt, "input"))
		turn.Mode = rapid.SampledFrom([]Mode{Followup, Collect}).Draw(rt, "mode")
		if rapid.Bool().Draw(rt, "keyed") {
			turn.IdempotencyKey = rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(rt, "key")
		}
		return acceptOf(turn)
	}
	t := m.turns[rapid.IntRange(0, len(m.turns)-1).Draw(rt, "turn")]
	number := t.Attempt
	if rapid.IntRange(0, 4).Draw(rt, "stale") == 0 {
		number--
	}
	next := func(after int64, typ EventType, text string) Event {
		return Event{Turn: t.ID, Seq: t.LastEvent + after, Type: typ, Attempt: number, Text: text, At: contractTime}
	}
	switch kind {
	case "start":
		return &startTurn{seq: t.seq, at: contractTime}
	case "append":
		return &appendText{seq: t.seq, number: number, event: next(1, EventDelta, "text")}
	case "cancel":
		return &cancelTurn{seq: t.seq, at: contractTime, why: "test"}
	case "delete":
		return &deleteTurn{id: t.ID}
	case "retry":
		return &retryTurn{id: t.ID, session: t.Session, at: contractTime}
	}
	op := &endTurn{seq: t.seq, number: number, turn: t.Turn}
	at := contractTime
	rest := rapid.SampledFrom([]string{"", "rest"}).Draw(rt, "rest")
	switch rapid.IntRange(0, 2).Draw(rt, "end") {
	case 0:
		op.turn.Status, op.turn.FinishedAt = Completed, &at
		op.turn.Output = t.text() + rest
		op.turn.Detail = rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage(`{"a":1}`)}).Draw(rt, "detail")
	case 1:
		op.turn.Status, op.turn.Error, op.turn.FinishedAt = Failed, "why", &at
	case 2:
		op.turn.Status, rest = Queued, ""
		op.turn.Attempt--
		op.events = []Event{next(1, EventInterrupted, "why")}
	}
	if rest != "" {
		op.events = append(op.events, next(1, EventDelta, rest))
	}
	if op.turn.Status != Queued {
		last := next(int64(len(op.events)+1), EventType(op.turn.Status), op.turn.Error)
		last.Detail = op.turn.Detail
		op.events = append(op.events, last)
	}
	op.turn.LastEvent = t.LastEvent + int64(len(op.events))
	return op
}

func (t *modelTurn) add(typ EventType, text string) {
	t.LastEvent++
	t.log = append(t.log, Event{Turn: t.ID, Seq: t.LastEvent, Type: typ, Attempt: t.Attempt, Text: text, At: contractTime})
}

// apply says what the operation does, and what it is answered with.
func (m *storeModel) apply(op operation) error {
	at := contractTime
	switch op := op.(type) {
	case *acceptTurn:
		return m.accept(op)
	case *startTurn:
		t := m.find(op.seq)
		if t.Status != Queued {
			return errRefused
		}
		t.Status, t.StartedAt = Running, &at
		t.Attempt++
		t.Runs++
		t.add(EventStarted, "")
	case *appendText:
		t := m.find(op.seq)
		if t.Status != Running || t.Attempt != op.number {
			return errRefused
		}
		t.add(EventDelta, op.event.Text)
	case *endTurn:
		t := m.find(op.seq)
		if t.Status != Running || t.Attempt != op.number {
			return errRefused
		}
		for _, e := range op.events {
			t.add(e.Type, e.Text)
			t.log[len(t.log)-1].Detail = e.Detail
		}
		t.Turn = op.turn
	case *cancelTurn:
		t := m.find(op.seq)
		if t.Status != Queued {
			return errRefused
		}
		t.Status, t.Error, t.FinishedAt = Cancelled, op.why, &at
		t.add(EventCancelled, op.why)
	case *deleteTurn:
		i := slices.IndexFunc(m.turns, func(t *modelTurn) bool { return t.ID == op.id })
		if !m.turns[i].Status.Final() {
			return ErrConflict
		}
		m.turns = slices.Delete(m.turns, i, i+1)
	case *retryTurn:
		i := slices.IndexFunc(m.turns, func(t *modelTurn) bool { return t.ID == op.id })
		t := m.turns[i]
		if t.Status != Failed && t.Status != Cancelled {
			return ErrConflict
		}
		t.Status, t.Attempt, t.Error, t.Output, t.StartedAt, t.FinishedAt = Queued, 0, "", "", nil, nil
		t.add(EventRequeued, "")
	}
	return nil
}

func (m *storeModel) accept(op *acceptTurn) error {
	var newest *modelTurn
	for _, t := range m.turns {
		if t.Session != op.turn.Session {
			continue
		}
		if first, ok := t.keys[op.turn.IdempotencyKey]; ok {
			if first != op.digest {
				return ErrKeyReused
			}
			return nil
		}
		newest = t
	}
	if op.turn.Mode == Collect && newest != nil && newest.Mode == Collect && newest.Status == Queued && newest.Runs == 0 {
		newest.Input += between + op.turn.Input
		newest.keys[op.turn.IdempotencyKey] = op.digest
		newest.add(EventCollected, op.turn.Input)
		return nil
	}
	m.seq++
	m.turns = append(m.turns, &modelTurn{
		Turn: op.turn, seq: m.seq, keys: map[string]digest{op.turn.IdempotencyKey: op.digest},
	})
	return nil
}

// text is what the latest run has written.
func (t *modelTurn) text() (text string) {
	for _, e := range t.log {
		switch e.Type { //nolint:exhaustive // the others leave it as it is
		case EventStarted:
			text = ""
		case EventDelta:
			text += e.Text
		}
	}
	return text
}

func (m *storeModel) settle(maxAttempts int) {
	at := contractTime
	for _, t := range m.turns {
		switch {
		case t.Status != Running:
		case t.Attempt >= maxAttempts:
			t.Error, t.FinishedAt = fmt.Sprintf("interrupted by a crash %d times", t.Attempt), &at
			t.add(EventFailed, t.Error)
			t.Status = Failed
		default:
			t.add(EventInterrupted, "interrupted by a crash")
			t.Status = Queued
		}
	}
}

// compare reads everything.
func (m *storeModel) compare(rt *rapid.T, s Store) {
	ctx := context.Background()
	var waiting, want []int64
	require.NoError(rt, s.waiting(func(w waitingTurn) { waiting = append(waiting, w.seq) }))
	for _, t := range m.turns {
		if diff := gocmp.Diff(t.Turn, stored(rt, s, t.ID)); diff != "" {
			rt.Fatalf("turn %d (-model +store):\n%s", t.seq, diff)
		}
		for _, page := range []int{1, 100} {
			var log []Event
			for {
				events, err := s.events(ctx, t.ID, int64(len(log)), page)
				require.NoError(rt, err)
				log = append(log, events...)
				if len(events) < page {
					break
				}
			}
			if diff := gocmp.Diff(t.log, log); diff != "" {
				rt.Fatalf("log of turn %d in pages of %d (-model +store):\n%s", t.seq, page, diff)
			}
		}
		for key := range t.keys {
			found, first, err := s.keyed(ctx, t.Session, key)
			require.NoError(rt, err)
			require.Equal(rt, t.ID, found.ID)
			if t.Mode == Collect || key != t.ID {
				require.Equal(rt, t.keys[key], first)
			}
		}
		if !t.Status.Final() && t.Status != Running {
			want = append(want, t.seq)
		}
	}
	waiting = slices.DeleteFunc(waiting, func(seq int64) bool { return m.find(seq).Status == Running })
	require.True(rt, slices.Equal(want, waiting), "%v, want %v", waiting, want)
}
