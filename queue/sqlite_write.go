package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"

	"gateway/internal/failpoint"
)

// writer is the one connection that writes, with its prepared statements.
type writer struct {
	conn    *sql.Conn
	epoch   int64
	stmts   []*statement
	claimed bool // compactLog is on disk

	begin, commit, rollback, epochNow     *statement
	addKey, keyOf, moveKey, addTurn, join *statement
	turnByID, set, unset, forgetKeys      *statement
	claim, start, turnBySeq, add, append1 *statement
	end, delay, cancel, retry             *statement
	spellStarted, spellFinal, spelled     *statement
	forget, forgetEvents, forgetKey       *statement
	left, settled                         *statement
}

func newWriter(ctx context.Context, db *sql.DB, epoch int64) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{conn: conn, epoch: epoch}
	prepare := func(query string) *statement {
		s := &statement{conn: conn, query: query}
		w.stmts = append(w.stmts, s)
		return s
	}
	w.begin = prepare(`BEGIN IMMEDIATE`)
	w.commit = prepare(`COMMIT`)
	w.rollback = prepare(`ROLLBACK`)
	w.epochNow = prepare(`SELECT epoch FROM meta`)

	w.addKey = prepare(`INSERT INTO keys (session, key, turn, digest, created_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`)
	w.keyOf = prepare(`SELECT turn, digest FROM keys WHERE session = ? AND key = ?`)
	w.addTurn = prepare(fmt.Sprintf(`INSERT INTO turns (id, session, lane, agent, status, attempt, epoch, key, on_interrupt,
		created_at, last_event, error, context, input, output, mode)
		VALUES (?, ?, ?, ?, '%s', 0, 0, ?, ?, ?, 0, '', ?, ?, '', ?)`, turnRules.of(absent, onAccept, 0).To))
	w.join = prepare(`UPDATE turns SET input = input || ?1 || ?2, last_event = last_event + 1
		WHERE seq = (SELECT max(seq) FROM turns WHERE session = ?3) AND ` + turnRules.where(onJoin) + ` AND runs = 0
		AND mode = 'collect' AND agent = ?4 AND lane = ?5 AND on_interrupt = ?6 AND context IS ?7
		AND octet_length(input) + octet_length(?1) + octet_length(?2) <= ?8 RETURNING seq`)
	w.moveKey = prepare(`UPDATE keys SET turn = ? WHERE session = ? AND key = ?`)
	w.turnByID = prepare(selectTurn + ` WHERE t.id = ?`)
	w.turnBySeq = prepare(selectTurn + ` WHERE t.seq = ?`)

	w.claim = prepare(fmt.Sprintf(`PRAGMA user_version = %d`, compactLog))
	w.start = prepare(`UPDATE turns SET ` + turnRules.of(Queued, onStart, 0).set() + `, epoch = ?, started_at = ?,
		last_event = last_event + 1, head = last_event + 1, not_before = 0 WHERE seq = ? AND ` + turnRules.where(onStart))
	w.add = prepare(`INSERT INTO events (turn, seq, type, attempt, text, at) VALUES (?, ?, ?, ?, ?, ?)`)
	w.append1 = prepare(`INSERT INTO events (turn, seq, type, attempt, text, at)
		SELECT seq, ?, ?, ?, ?, ? FROM turns
		WHERE seq = ? AND ` + turnRules.where(onText) + ` AND epoch = ? AND attempt = ?`)
	w.end = prepare(`UPDATE turns SET status = ?, attempt = ?, finished_at = ?, last_event = ?, error = ?, output = ?, detail = ?
		WHERE seq = ? AND ` + turnRules.where(onComplete) + ` AND epoch = ? AND attempt = ?`)
	w.spellStarted = prepare(`INSERT INTO events (turn, seq, type, attempt, text, at)
		SELECT seq, head, 'started', ?, '', started_at FROM turns WHERE seq = ? AND head > 0`)
	w.spellFinal = prepare(`INSERT INTO events (turn, seq, type, attempt, text, at)
		SELECT seq, last_event, status, attempt, error, finished_at FROM turns
		WHERE seq = ? AND head > 0 AND finished_at IS NOT NULL`)
	w.spelled = prepare(`UPDATE turns SET head = 0 WHERE seq = ?`)
	w.delay = prepare(`UPDATE turns SET not_before = ? WHERE seq = ?`)
	w.cancel = prepare(`UPDATE turns SET ` + turnRules.of(Queued, onCancel, 0).set() + `, finished_at = ?, last_event = last_event + 1,
		error = ?, not_before = 0 WHERE seq = ? AND status = 'queued'`)
	w.retry = prepare(`UPDATE turns SET status = ?, attempt = ?, started_at = NULL, finished_at = NULL,
		last_event = last_event + 1, error = '', output = '', not_before = 0 WHERE seq = ?`)

	w.forget = prepare(`DELETE FROM turns WHERE seq = ? AND finished_at < ? RETURNING id, session, key, mode`)
	w.forgetEvents = prepare(`DELETE FROM events WHERE turn = ?`)
	w.forgetKey = prepare(`DELETE FROM keys WHERE session = ? AND key = ? AND turn = ?`)

	w.forgetKeys = prepare(`DELETE FROM keys WHERE session = ? AND turn = ?`)
	w.set = prepare(`INSERT INTO settings (kind, name, paused, mode) VALUES (?1, ?2, coalesce(?3, 0), coalesce(?4, ''))
		ON CONFLICT DO UPDATE SET paused = coalesce(?3, paused), mode = coalesce(?4, mode) RETURNING paused, mode`)
	w.unset = prepare(`DELETE FROM settings WHERE kind = ? AND name = ?`)

	w.left = prepare(selectTurn + ` WHERE t.finished_at IS NULL AND t.status = 'running' ORDER BY t.seq`)
	w.settled = prepare(`UPDATE turns SET status = ?, attempt = ?, finished_at = ?, last_event = ?, error = ?
		WHERE seq = ? AND ` + turnRules.where(onCrash) + ` AND epoch < ?`)
	return w, nil
}

func (w *writer) close() error {
	var errs []error
	for _, s := range w.stmts {
		if s.ready != nil {
			errs = append(errs, s.ready.Close())
		}
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// statement is prepared when it is first needed: a start, for which clients wait, needs few of them.
type statement struct {
	conn  *sql.Conn
	query string
	ready *sql.Stmt // nil until then
}

func (s *statement) prepare(ctx context.Context) (_ *sql.Stmt, err error) {
	if s.ready == nil {
		s.ready, err = s.conn.PrepareContext(ctx, s.query)
	}
	return s.ready, err
}

func (s *statement) ExecContext(ctx context.Context, args ...any) (sql.Result, error) {
	stmt, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(ctx, args...)
}

func (s *statement) QueryContext(ctx context.Context, args ...any) (*sql.Rows, error) {
	stmt, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

func (s *statement) QueryRowContext(ctx context.Context, args ...any) *sql.Row {
	stmt, err := s.prepare(ctx)
	if err != nil {
		return s.conn.QueryRowContext(ctx, s.query, args...) // has the error
	}
	return stmt.QueryRowContext(ctx, args...)
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
	starts := false
	if err := s.inPlace(); err != nil {
		return err
	}
	err := s.w.transaction(func() error {
		for _, op := range ops {
			err := s.w.apply(op)
			if _, ok := op.(*startTurn); ok {
				starts = true
			}
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
	s.w.claimed = s.w.claimed || starts && err == nil
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
	case *changeSetting:
		kind = "set"
	case *deleteTurn:
		kind = "delete"
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

// between stands between the inputs that were joined.
const between = "\n\n"

// compactLog is the oldest schema that can read what starts and ends write; the store says so from the first
// start on, and until then an older binary can open it again.
const compactLog = 3
