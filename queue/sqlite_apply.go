package queue

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rs/xid"
)

func (w *writer) apply(op operation) error {
	switch op := op.(type) {
	case *acceptTurn:
		return w.applyAccept(op)
	case *startTurn:
		return w.applyStart(op)
	case *appendText:
		e := op.event
		return w.one(w.append1, e.Seq, string(e.Type), e.Attempt, e.Text, e.At.UnixMicro(),
			op.seq, w.epoch, op.number)
	case *endTurn:
		return w.applyEnd(op)
	case *cancelTurn:
		return w.applyCancel(op)
	case *retryTurn:
		return w.applyRetry(op)
	case *changeSetting:
		return w.applySetting(op)
	case *deleteTurn:
		return w.applyDelete(op)
	case *pruneTurns:
		return w.applyPrune(op)
	}
	return fmt.Errorf("queue: unknown operation %T", op)
}

// one executes a statement that must touch one row.
func (w *writer) one(stmt *statement, args ...any) error {
	n, err := w.count(stmt, args...)
	if err == nil && n == 0 {
		err = errRefused
	}
	return err
}

func (w *writer) count(stmt *statement, args ...any) (int64, error) {
	r, err := stmt.ExecContext(w.ctx(), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (w *writer) applyAccept(op *acceptTurn) error {
	t := &op.turn
	created := t.CreatedAt.UnixMicro()
	op.first, op.joined = nil, false
	// A key that was made is the turn's own id, which has an index already: it needs no row, unless the turn
	// will not be there under that id, or with another input.
	if t.IdempotencyKey != t.ID || t.Mode == Collect {
		n, err := w.count(w.addKey, t.Session, t.IdempotencyKey, t.ID, op.digest[:], created)
		if err != nil {
			return err
		}
		if n == 0 {
			return w.repeated(op)
		}
		if again, err := w.repeatedByID(op); again || err != nil {
			return err
		}
	}
	attached := blob(t.Context)
	if t.Mode == Collect {
		if joined, err := w.joined(op, attached); joined || err != nil {
			return err
		}
	}
	r, err := w.addTurn.ExecContext(w.ctx(), t.ID, t.Session, t.Lane, t.Agent, t.IdempotencyKey,
		string(t.OnInterrupt), created, attached, t.Input, string(t.Mode))
	if err != nil {
		return err
	}
	op.seq, err = r.LastInsertId()
	return err
}

// joined adds the input to the turn that waits last in the session, when there is one of the same kind.
func (w *writer) joined(op *acceptTurn, attached any) (bool, error) {
	t := &op.turn
	var seq int64
	err := w.join.QueryRowContext(w.ctx(), between, t.Input, t.Session, t.Agent, t.Lane, string(t.OnInterrupt),
		attached, op.longest).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	first, err := scanTurn(w.turnBySeq.QueryRowContext(w.ctx(), seq), nil)
	if err != nil {
		return false, err
	}
	if _, err := w.moveKey.ExecContext(w.ctx(), first.ID, t.Session, t.IdempotencyKey); err != nil {
		return false, err
	}
	op.first, op.joined = &first, true
	return true, w.event(seq, turnRules.of(Queued, onJoin, joinable).Event, first.LastEvent, first.Attempt, t.Input, t.CreatedAt)
}

// repeated finds the turn that the key named first.
func (w *writer) repeated(op *acceptTurn) error {
	var id string
	var first []byte
	if err := w.keyOf.QueryRowContext(w.ctx(), op.turn.Session, op.turn.IdempotencyKey).Scan(&id, &first); err != nil {
		return err
	}
	if digest(first) != op.digest {
		return ErrKeyReused
	}
	t, err := scanTurn(w.turnByID.QueryRowContext(w.ctx(), id), nil)
	if err != nil {
		return err
	}
	op.first = &t
	return nil
}

// repeatedByID finds the turn whose made key came back with a repeat of the request.
func (w *writer) repeatedByID(op *acceptTurn) (bool, error) {
	key := op.turn.IdempotencyKey
	if _, err := xid.FromString(key); err != nil {
		return false, nil //nolint:nilerr // a client's own key is found by its index
	}
	t, err := scanTurn(w.turnByID.QueryRowContext(w.ctx(), key), nil)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case t.Session != op.turn.Session || t.IdempotencyKey != key:
		return false, nil
	}
	if _, err := w.forgetKey.ExecContext(w.ctx(), t.Session, key, op.turn.ID); err != nil {
		return false, err
	}
	if digestOf(t.Agent, t.Input) != op.digest {
		return true, ErrKeyReused
	}
	op.first = &t
	return true, nil
}

func (w *writer) applyStart(op *startTurn) error {
	if !w.claimed {
		if _, err := w.claim.ExecContext(w.ctx()); err != nil {
			return err
		}
	}
	if err := w.one(w.start, w.epoch, op.at.UnixMicro(), op.seq); err != nil {
		return err
	}
	var t Turn
	if op.queued != nil {
		t = *op.queued
		turnRules.of(Queued, onStart, 0).apply(&t)
		t.LastEvent++
		t.StartedAt = &op.at
	} else {
		var err error
		if t, err = scanTurn(w.turnBySeq.QueryRowContext(w.ctx(), op.seq), nil); err != nil {
			return err
		}
	}
	op.turn = t
	return nil
}

func (w *writer) event(turn int64, typ EventType, seq int64, attempt int, text string, at time.Time) error {
	_, err := w.add.ExecContext(w.ctx(), turn, seq, string(typ), attempt, text, at.UnixMicro())
	return err
}

// applyEnd writes the end of an attempt. The row of a turn stands for the events that its last attempt began
// and ended with, and for its text when that is the output; see the migration. An attempt that was not the
// last is spelled out in the log.
func (w *writer) applyEnd(op *endTurn) error {
	t := &op.turn
	if err := w.one(w.end, string(t.Status), t.Attempt, micros(t.FinishedAt), t.LastEvent, t.Error, t.Output,
		blob(t.Detail), op.seq, w.epoch, op.number); err != nil {
		return err
	}
	if !t.Status.Final() {
		if err := w.spell(op.seq, op.number); err != nil {
			return err
		}
	}
	if t.NotBefore != nil {
		if _, err := w.delay.ExecContext(w.ctx(), t.NotBefore.UnixMicro(), op.seq); err != nil {
			return err
		}
	}
	for _, e := range op.events {
		if e.Type.Final() || t.Status == Completed && len(e.Text) == len(t.Output) {
			continue
		}
		if err := w.event(op.seq, e.Type, e.Seq, e.Attempt, e.Text, e.At); err != nil {
			return err
		}
	}
	return nil
}

// spell writes to the log what the turn's row stands for.
func (w *writer) spell(turn int64, attempt int) error {
	if _, err := w.spellStarted.ExecContext(w.ctx(), attempt, turn); err != nil {
		return err
	}
	if _, err := w.spellFinal.ExecContext(w.ctx(), turn); err != nil {
		return err
	}
	_, err := w.spelled.ExecContext(w.ctx(), turn)
	return err
}

func (w *writer) applyCancel(op *cancelTurn) error {
	if err := w.one(w.cancel, op.at.UnixMicro(), op.why, op.seq); err != nil {
		return err
	}
	t, err := scanTurn(w.turnBySeq.QueryRowContext(w.ctx(), op.seq), nil)
	if err != nil {
		return err
	}
	op.turn = t
	return w.event(op.seq, turnRules.of(Queued, onCancel, 0).Event, t.LastEvent, t.Attempt, op.why, op.at)
}

func (w *writer) applyRetry(op *retryTurn) error {
	t, err := scanTurn(w.turnByID.QueryRowContext(w.ctx(), op.id), &op.seq)
	if err != nil {
		return err
	}
	again := turnRules.of(t.Status, onRetry, 0)
	if again.Kind == refused {
		op.turn = t
		return conflict(t.Status)
	}
	if err := w.spell(op.seq, t.Attempt); err != nil {
		return err
	}
	again.apply(&t)
	if _, err := w.retry.ExecContext(w.ctx(), string(t.Status), t.Attempt, op.seq); err != nil {
		return err
	}
	if op.turn, err = scanTurn(w.turnByID.QueryRowContext(w.ctx(), op.id), nil); err != nil {
		return err
	}
	return w.event(op.seq, again.Event, op.turn.LastEvent, op.turn.Attempt, "", op.at)
}

func (w *writer) applyPrune(op *pruneTurns) error {
	op.pruned = 0
	for _, seq := range op.seqs {
		err := w.forgetTurn(seq, op.before)
		if errors.Is(err, sql.ErrNoRows) {
			continue // retried meanwhile
		}
		if err != nil {
			return err
		}
		op.pruned++
	}
	return nil
}

func (w *writer) applyDelete(op *deleteTurn) error {
	var seq int64
	t, err := scanTurn(w.turnByID.QueryRowContext(w.ctx(), op.id), &seq)
	if err != nil {
		return err
	}
	op.turn = t
	if turnRules.of(t.Status, onDelete, 0).Kind == refused {
		return conflict(t.Status)
	}
	return w.forgetTurn(seq, t.FinishedAt.Add(time.Microsecond))
}

// forgetTurn deletes a turn that finished before a time, with its events and keys; [sql.ErrNoRows] when it has
// not.
func (w *writer) forgetTurn(seq int64, before time.Time) error {
	var id, session, key string
	var mode Mode
	err := w.forget.QueryRowContext(w.ctx(), seq, before.UnixMicro()).Scan(&id, &session, &key, &mode)
	if err != nil {
		return err
	}
	if _, err := w.forgetEvents.ExecContext(w.ctx(), seq); err != nil {
		return err
	}
	if mode == Collect { // inputs with keys of their own may have joined it
		_, err = w.forgetKeys.ExecContext(w.ctx(), session, id)
	} else {
		_, err = w.forgetKey.ExecContext(w.ctx(), session, key, id)
	}
	return err
}

func (w *writer) applySetting(op *changeSetting) error {
	if err := w.set.QueryRowContext(w.ctx(), string(op.kind), op.name, op.paused, op.mode).
		Scan(&op.now.paused, &op.now.mode); err != nil {
		return err
	}
	if op.now != (setting{}) {
		return nil
	}
	_, err := w.unset.ExecContext(w.ctx(), string(op.kind), op.name)
	return err
}

// leftRunning lists what older generations left running.
func (w *writer) leftRunning() ([]seqTurn, error) {
	rows, err := w.left.QueryContext(w.ctx())
	if err != nil {
		return nil, err
	}
	return collect(rows, 0)
}

// settle ends the attempt of a generation that is gone, and returns the status that the turn has now.
func (w *writer) settle(t seqTurn, maxAttempts int, at time.Time, pause func(attempts int) time.Duration) (Status, error) {
	r := turnRules.of(Running, onCrash, t.facts(maxAttempts))
	number, text, why, finished := t.Attempt, "interrupted by a crash", "", any(nil)
	r.apply(&t.Turn)
	if r.To.Final() {
		if t.OnInterrupt != FailTurn {
			text = fmt.Sprintf("interrupted by a crash %d times", number)
		}
		why, finished = text, at.UnixMicro()
	}
	last := t.LastEvent + 1
	if err := w.spell(t.seq, number); err != nil {
		return t.Status, err
	}
	if err := w.one(w.settled, string(t.Status), t.Attempt, finished, last, why, t.seq, w.epoch); err != nil {
		return t.Status, err
	}
	if wait := pause(number); r.Pause && wait > 0 {
		if _, err := w.delay.ExecContext(w.ctx(), at.Add(wait).UnixMicro(), t.seq); err != nil {
			return t.Status, err
		}
	}
	return t.Status, w.event(t.seq, r.Event, last, number, text, at)
}

// blob is NULL for nil.
func blob(raw json.RawMessage) any {
	if raw == nil {
		return nil
	}
	return []byte(raw)
}

func micros(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UnixMicro()
}
