package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/rs/xid"
	sqlite3 "modernc.org/sqlite/lib"

	"gateway/internal/failpoint"
)

// writer is the one connection that writes, with its prepared statements.
type writer struct {
	conn  *sql.Conn
	epoch int64
	stmts []*sql.Stmt

	begin, commit, rollback, epochNow     *sql.Stmt
	addKey, keyOf, addTurn, turnByID      *sql.Stmt
	start, turnBySeq, add1, add2, append1 *sql.Stmt
	end, cancel, retry                    *sql.Stmt
	forget, forgetEvents, forgetKey       *sql.Stmt
	left, settled                         *sql.Stmt
}

func newWriter(ctx context.Context, db *sql.DB, epoch int64) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{conn: conn, epoch: epoch}
	prepare := func(query string) *sql.Stmt {
		if err != nil {
			return nil
		}
		var s *sql.Stmt
		if s, err = conn.PrepareContext(ctx, query); err == nil {
			w.stmts = append(w.stmts, s)
		}
		return s
	}
	w.begin = prepare(`BEGIN IMMEDIATE`)
	w.commit = prepare(`COMMIT`)
	w.rollback = prepare(`ROLLBACK`)
	w.epochNow = prepare(`SELECT epoch FROM meta`)

	w.addKey = prepare(`INSERT INTO keys (session, key, turn, digest, created_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`)
	w.keyOf = prepare(`SELECT turn, digest FROM keys WHERE session = ? AND key = ?`)
	w.addTurn = prepare(`INSERT INTO turns (id, session, lane, agent, status, attempt, epoch, key, on_interrupt,
		created_at, last_event, error, context, input, output)
		VALUES (?, ?, ?, ?, 'queued', 0, 0, ?, ?, ?, 0, '', ?, ?, '')`)
	w.turnByID = prepare(selectTurn + ` WHERE t.id = ?`)
	w.turnBySeq = prepare(selectTurn + ` WHERE t.seq = ?`)

	w.start = prepare(`UPDATE turns SET status = 'running', attempt = attempt + 1, runs = runs + 1, epoch = ?, started_at = ?,
		last_event = last_event + 1 WHERE seq = ? AND status = 'queued'`)
	w.add1 = prepare(`INSERT INTO events (turn, seq, type, attempt, text, at) VALUES (?, ?, ?, ?, ?, ?)`)
	w.add2 = prepare(`INSERT INTO events (turn, seq, type, attempt, text, at)
		VALUES (?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?)`)
	w.append1 = prepare(`INSERT INTO events (turn, seq, type, attempt, text, at)
		SELECT seq, ?, ?, ?, ?, ? FROM turns
		WHERE seq = ? AND status = 'running' AND epoch = ? AND attempt = ?`)
	w.end = prepare(`UPDATE turns SET status = ?, attempt = ?, finished_at = ?, last_event = ?, error = ?, output = ?
		WHERE seq = ? AND status = 'running' AND epoch = ? AND attempt = ?`)
	w.cancel = prepare(`UPDATE turns SET status = 'cancelled', finished_at = ?, last_event = last_event + 1,
		error = ? WHERE seq = ? AND status = 'queued'`)
	w.retry = prepare(`UPDATE turns SET status = 'queued', attempt = 0, started_at = NULL, finished_at = NULL,
		last_event = last_event + 1, error = '', output = '' WHERE id = ? AND status IN ('failed', 'cancelled')`)

	w.forget = prepare(`DELETE FROM turns WHERE seq = ? AND finished_at < ? RETURNING id, session, key`)
	w.forgetEvents = prepare(`DELETE FROM events WHERE turn = ?`)
	w.forgetKey = prepare(`DELETE FROM keys WHERE session = ? AND key = ? AND turn = ?`)

	w.left = prepare(selectTurn + ` WHERE t.status = 'running' ORDER BY t.seq`)
	w.settled = prepare(`UPDATE turns SET status = ?, finished_at = ?, last_event = ?, error = ?
		WHERE seq = ? AND status = 'running' AND epoch < ?`)
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *writer) close() error {
	var errs []error
	for _, s := range w.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// ctx is the context of every write: a transaction is never left half way because somebody went away.
func (w *writer) ctx() context.Context { return context.Background() }

// transaction runs f in a transaction of this generation.
func (w *writer) transaction(f func() error) (err error) {
	if _, err := w.begin.ExecContext(w.ctx()); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// SQLite has rolled back by itself after some errors; then there is nothing to do.
			_, _ = w.rollback.ExecContext(w.ctx())
		}
	}()
	var epoch int64
	if err := w.epochNow.QueryRowContext(w.ctx()).Scan(&epoch); err != nil {
		return err
	}
	if epoch != w.epoch {
		return errFenced
	}
	if err := f(); err != nil {
		return err
	}
	_, err = w.commit.ExecContext(w.ctx())
	return err
}

func (s *sqliteStore) commit(ops []operation) error {
	if err := s.inPlace(); err != nil {
		return err
	}
	err := s.w.transaction(func() error {
		for _, op := range ops {
			err := s.w.apply(op)
			mark(op, "applied")
			switch {
			case err == nil:
			case errors.Is(err, errRefused), errors.Is(err, ErrNotFound),
				errors.Is(err, ErrConflict), errors.Is(err, ErrKeyReused):
				op.status().err = err
			case aboutStatement(err):
				return &rejectedError{op: op, err: err}
			default:
				return err
			}
		}
		return nil
	})
	for _, op := range ops {
		mark(op, "committed")
	}
	if err != nil {
		// Nothing of the batch happened, what was found out about single operations neither.
		for _, op := range ops {
			op.status().err = nil
		}
	}
	var rejected *rejectedError
	switch {
	case err == nil, errors.Is(err, errFenced), errors.As(err, &rejected):
		return err
	}
	if known := named(err); known != nil {
		return known
	}
	return fmt.Errorf("queue: write to the store: %w", err)
}

// mark is where a test lets the process die.
func mark(op operation, when string) {
	if !failpoint.Enabled {
		return
	}
	kind := ""
	switch op.(type) {
	case *acceptTurn:
		kind = "accept"
	case *startTurn:
		kind = "start"
	case *appendText:
		kind = "append"
	case *endTurn:
		kind = "end"
	case *cancelTurn:
		kind = "cancel"
	case *retryTurn:
		kind = "retry"
	case *pruneTurns:
		kind = "prune"
	}
	failpoint.At("store." + kind + "." + when)
}

// aboutStatement reports an error that is the statement's own; the transaction is as it was before it.
func aboutStatement(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE:
		return true
	}
	return false
}

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
	case *pruneTurns:
		return w.applyPrune(op)
	}
	return fmt.Errorf("queue: unknown operation %T", op)
}

// one executes a statement that must touch one row.
func (w *writer) one(stmt *sql.Stmt, args ...any) error {
	n, err := w.count(stmt, args...)
	if err == nil && n == 0 {
		err = errRefused
	}
	return err
}

func (w *writer) count(stmt *sql.Stmt, args ...any) (int64, error) {
	r, err := stmt.ExecContext(w.ctx(), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (w *writer) applyAccept(op *acceptTurn) error {
	t := &op.turn
	created := t.CreatedAt.UnixMicro()
	op.first = nil
	// A key that was made is the turn's own id, which has an index already: it needs no row.
	if t.IdempotencyKey != t.ID {
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
	var attached any
	if t.Context != nil {
		attached = []byte(t.Context)
	}
	r, err := w.addTurn.ExecContext(w.ctx(), t.ID, t.Session, t.Lane, t.Agent, t.IdempotencyKey,
		string(t.OnInterrupt), created, attached, t.Input)
	if err != nil {
		return err
	}
	op.seq, err = r.LastInsertId()
	return err
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
		return false, nil
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
	if err := w.one(w.start, w.epoch, op.at.UnixMicro(), op.seq); err != nil {
		return err
	}
	var t Turn
	if op.queued != nil {
		t = *op.queued
		t.Status = Running
		t.Attempt++
		t.Runs++
		t.LastEvent++
		t.StartedAt = &op.at
	} else {
		var err error
		if t, err = scanTurn(w.turnBySeq.QueryRowContext(w.ctx(), op.seq), nil); err != nil {
			return err
		}
	}
	if err := w.event(op.seq, EventStarted, t.LastEvent, t.Attempt, "", op.at); err != nil {
		return err
	}
	op.turn = t
	return nil
}

func (w *writer) event(turn int64, typ EventType, seq int64, attempt int, text string, at time.Time) error {
	_, err := w.add1.ExecContext(w.ctx(), turn, seq, string(typ), attempt, text, at.UnixMicro())
	return err
}

func (w *writer) applyEnd(op *endTurn) error {
	t := &op.turn
	if err := w.one(w.end, string(t.Status), t.Attempt, micros(t.FinishedAt), t.LastEvent, t.Error, t.Output,
		op.seq, w.epoch, op.number); err != nil {
		return err
	}
	e := op.events
	if len(e) == 2 {
		_, err := w.add2.ExecContext(w.ctx(),
			op.seq, e[0].Seq, string(e[0].Type), e[0].Attempt, e[0].Text, e[0].At.UnixMicro(),
			op.seq, e[1].Seq, string(e[1].Type), e[1].Attempt, e[1].Text, e[1].At.UnixMicro())
		return err
	}
	return w.event(op.seq, e[0].Type, e[0].Seq, e[0].Attempt, e[0].Text, e[0].At)
}

func (w *writer) applyCancel(op *cancelTurn) error {
	const why = "cancelled on request"
	if err := w.one(w.cancel, op.at.UnixMicro(), why, op.seq); err != nil {
		return err
	}
	t, err := scanTurn(w.turnBySeq.QueryRowContext(w.ctx(), op.seq), nil)
	if err != nil {
		return err
	}
	op.turn = t
	return w.event(op.seq, EventCancelled, t.LastEvent, t.Attempt, why, op.at)
}

func (w *writer) applyRetry(op *retryTurn) error {
	n, err := w.count(w.retry, op.id)
	if err != nil {
		return err
	}
	t, err := scanTurn(w.turnByID.QueryRowContext(w.ctx(), op.id), &op.seq)
	if err != nil {
		return err
	}
	op.turn = t
	if n == 0 {
		return fmt.Errorf("%w: the turn is %s", ErrConflict, t.Status)
	}
	return w.event(op.seq, EventRequeued, t.LastEvent, t.Attempt, "", op.at)
}

func (w *writer) applyPrune(op *pruneTurns) error {
	op.pruned = 0
	for _, seq := range op.seqs {
		var id, session, key string
		err := w.forget.QueryRowContext(w.ctx(), seq, op.before.UnixMicro()).Scan(&id, &session, &key)
		if errors.Is(err, sql.ErrNoRows) {
			continue // retried meanwhile
		}
		if err != nil {
			return err
		}
		if _, err := w.forgetEvents.ExecContext(w.ctx(), seq); err != nil {
			return err
		}
		if _, err := w.forgetKey.ExecContext(w.ctx(), session, key, id); err != nil {
			return err
		}
		op.pruned++
	}
	return nil
}

// leftRunning lists what older generations left running.
func (w *writer) leftRunning() ([]seqTurn, error) {
	rows, err := w.left.QueryContext(w.ctx())
	if err != nil {
		return nil, err
	}
	return collect(rows)
}

// settle ends the attempt of a generation that is gone.
func (w *writer) settle(t seqTurn, maxAttempts int, at time.Time) error {
	status, typ, text, finished := Queued, EventInterrupted, "interrupted by a crash", any(nil)
	why := ""
	if t.OnInterrupt == FailTurn || t.Attempt >= maxAttempts {
		if t.OnInterrupt != FailTurn {
			text = fmt.Sprintf("interrupted by a crash %d times", t.Attempt)
		}
		status, typ, why, finished = Failed, EventFailed, text, at.UnixMicro()
	}
	last := t.LastEvent + 1
	if err := w.one(w.settled, string(status), finished, last, why, t.seq, w.epoch); err != nil {
		return err
	}
	return w.event(t.seq, typ, last, t.Attempt, text, at)
}

func micros(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UnixMicro()
}
