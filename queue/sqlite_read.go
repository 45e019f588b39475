package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// selectTurn reads a whole turn. The row of a running turn is not rewritten for every delta; its newest
// event is the log's.
const selectTurn = `SELECT t.seq, t.id, t.session, t.lane, t.agent, t.status, t.attempt, t.key, t.on_interrupt,
	t.created_at, t.started_at, t.finished_at, CASE t.status WHEN 'running'
		THEN max(t.last_event, (SELECT coalesce(max(e.seq), 0) FROM events e WHERE e.turn = t.seq))
		ELSE t.last_event END,
	t.error, t.context, t.input, t.output, t.runs, t.mode, t.not_before, t.detail FROM turns t`

// selectListed is selectTurn without what no listing shows.
var selectListed = strings.NewReplacer("t.context", "NULL", "t.detail", "NULL").Replace(selectTurn)

// seqTurn is a turn with its place in the order of acceptance.
type seqTurn struct {
	Turn
	seq int64
}

// scanTurn reads a row of selectTurn; seq, unless nil, gets the turn's number.
func scanTurn(row interface{ Scan(...any) error }, seq *int64) (Turn, error) {
	var (
		t                 Turn
		number, created   int64
		notBefore         int64
		started, finished sql.NullInt64
		attached, detail  []byte
	)
	err := row.Scan(&number, &t.ID, &t.Session, &t.Lane, &t.Agent, &t.Status, &t.Attempt, &t.IdempotencyKey,
		&t.OnInterrupt, &created, &started, &finished, &t.LastEvent, &t.Error, &attached, &t.Input, &t.Output, &t.Runs,
		&t.Mode, &notBefore, &detail)
	if errors.Is(err, sql.ErrNoRows) {
		return Turn{}, ErrNotFound
	}
	if err != nil {
		return Turn{}, fmt.Errorf("queue: read the store: %w", err)
	}
	t.CreatedAt = fromMicros(created)
	t.StartedAt, t.FinishedAt = maybeTime(started), maybeTime(finished)
	t.NotBefore = maybeTime(sql.NullInt64{Int64: notBefore, Valid: notBefore != 0})
	t.Context, t.Detail = json.RawMessage(attached), json.RawMessage(detail)
	if seq != nil {
		*seq = number
	}
	return t, nil
}

func maybeTime(micros sql.NullInt64) *time.Time {
	if !micros.Valid {
		return nil
	}
	t := fromMicros(micros.Int64)
	return &t
}

// collect reads the rows of selectTurn, until their texts come to so many bytes (0 for all), and closes them.
func collect(rows *sql.Rows, most int64) (turns []seqTurn, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for room := most; (most == 0 || room > 0) && rows.Next(); room -= turns[len(turns)-1].texts() {
		var t seqTurn
		if t.Turn, err = scanTurn(rows, &t.seq); err != nil {
			return nil, err
		}
		turns = append(turns, t)
	}
	return turns, rows.Err()
}

// reader has the statements that are asked for every turn; SQLite takes several times longer to prepare one than to
// run it. [sql.DB] prepares them anew for each of its connections.
type reader struct{ turn, seq, events *sql.Stmt }

func newReader(ctx context.Context, db *sql.DB) (r reader, err error) {
	for query, stmt := range map[string]**sql.Stmt{
		selectTurn + ` WHERE t.id = ?`:       &r.turn,
		`SELECT seq FROM turns WHERE id = ?`: &r.seq,
		selectEvents:                         &r.events,
	} {
		if *stmt, err = db.PrepareContext(ctx, query); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (s *sqliteStore) turn(ctx context.Context, id string) (Turn, error) {
	return scanTurn(s.r.turn.QueryRowContext(ctx, id), nil)
}

func (s *sqliteStore) turnByKey(ctx context.Context, session, key string, among int) (Turn, error) {
	return scanTurn(s.reads.QueryRowContext(ctx, selectTurn+` WHERE t.seq = (SELECT max(seq) FROM turns
		WHERE key = ?1 AND ?2 IN ('', session) AND seq > (SELECT max(seq) FROM turns) - ?3)`, key, session, among), nil)
}

func (s *sqliteStore) list(ctx context.Context, most int64, where string, args ...any) ([]Turn, error) {
	query := selectTurn
	if most > 0 {
		query = selectListed
	}
	rows, err := s.reads.QueryContext(ctx, query+where, args...)
	if err != nil {
		return nil, fmt.Errorf("queue: read the store: %w", err)
	}
	found, err := collect(rows, most)
	turns := make([]Turn, len(found))
	for i := range found {
		turns[i] = found[i].Turn
	}
	return turns, err
}

func (s *sqliteStore) turns(ctx context.Context, f Filter) ([]Turn, error) {
	where := []string{"1"}
	var args []any
	add := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	if f.Session != "" {
		add("t.session = ?", f.Session)
	}
	if f.Lane != "" {
		add("t.lane = ?", f.Lane)
	}
	if f.Agent != "" {
		add("t.agent = ?", f.Agent)
	}
	if len(f.Status) > 0 {
		var values []any
		open := true
		for _, status := range f.Status {
			values = append(values, string(status))
			open = open && !status.Final()
		}
		add("t.status IN (?"+strings.Repeat(", ?", len(values)-1)+")", values...)
		if open {
			add("t.finished_at IS NULL") // has an index
		}
	}
	if f.Before != "" {
		add("t.seq < (SELECT seq FROM turns WHERE id = ?)", f.Before)
	}
	return s.list(ctx, f.Bytes, " WHERE "+strings.Join(where, " AND ")+" ORDER BY t.seq DESC LIMIT ?",
		append(args, f.limit())...)
}

func (s *sqliteStore) history(ctx context.Context, session string, seq int64, limit int) ([]Turn, error) {
	turns, err := s.list(ctx, 0,
		` WHERE t.session = ? AND t.seq < ? AND t.status = 'completed' ORDER BY t.seq DESC LIMIT ?`,
		session, seq, max(limit, 0))
	slices.Reverse(turns)
	return turns, err
}

func (s *sqliteStore) keyed(ctx context.Context, session, key string) (Turn, digest, error) {
	var id string
	var first []byte
	err := s.reads.QueryRowContext(ctx, `SELECT turn, digest FROM keys WHERE session = ? AND key = ?`,
		session, key).Scan(&id, &first)
	if errors.Is(err, sql.ErrNoRows) {
		t, err := s.turn(ctx, key) // a key that was made is the turn's id
		if err == nil && (t.Session != session || t.IdempotencyKey != key) {
			err = ErrNotFound
		}
		return t, digestOf(t.Agent, t.Input), err
	}
	if err != nil {
		return Turn{}, digest{}, fmt.Errorf("queue: read the store: %w", err)
	}
	t, err := s.turn(ctx, id)
	return t, digest(first), err
}

// selectSessions counts the turns of the sessions s.
const selectSessions = `SELECT s.session, count(t.seq), coalesce(sum(t.status = 'queued'), 0),
		coalesce(sum(t.status = 'running'), 0),
		max(coalesce(t.finished_at, t.started_at, t.created_at)) AS used, coalesce(c.paused, 0), coalesce(c.mode, '')
	FROM s LEFT JOIN turns t ON t.session = s.session
	LEFT JOIN settings c ON c.kind = 'session' AND c.name = s.session
	GROUP BY s.session ORDER BY used DESC, s.session`

func (s *sqliteStore) sessions(ctx context.Context, limit int) ([]Session, error) {
	// Those that were used lately are among the newest turns, unless a few sessions had them all.
	found, err := s.countSessions(ctx, `WITH s AS (SELECT session FROM (SELECT session, seq FROM turns ORDER BY seq DESC LIMIT 5000)
		GROUP BY session ORDER BY max(seq) DESC LIMIT ?) `, limit)
	if err != nil || len(found) == limit {
		return found, err
	}
	return s.countSessions(ctx, `WITH s AS (SELECT session FROM turns GROUP BY session ORDER BY max(seq) DESC LIMIT ?) `, limit)
}

func (s *sqliteStore) session(ctx context.Context, name string) (Session, error) {
	found, err := s.countSessions(ctx, `WITH s (session) AS (SELECT ?) `, name)
	if err != nil {
		return Session{}, err
	}
	return found[0], nil
}

func (s *sqliteStore) countSessions(ctx context.Context, which string, arg any) (sessions []Session, err error) {
	rows, err := s.reads.QueryContext(ctx, which+selectSessions, arg)
	if err != nil {
		return nil, fmt.Errorf("queue: read the store: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var one Session
		var used sql.NullInt64
		if err := rows.Scan(&one.Name, &one.Turns, &one.Queued, &one.Running, &used, &one.Paused, &one.Mode); err != nil {
			return nil, fmt.Errorf("queue: read the store: %w", err)
		}
		if used.Valid {
			one.UpdatedAt = fromMicros(used.Int64)
		}
		sessions = append(sessions, one)
	}
	return sessions, rows.Err()
}

// selectEvents reads what the log has after a number, and what the turn's row stands for; see the migration.
const selectEvents = `SELECT seq, type, attempt, text, at, NULL FROM events WHERE turn = ?1 AND seq > ?2
	UNION ALL SELECT head, 'started', attempt, '', started_at, NULL FROM turns WHERE seq = ?1 AND head > max(?2, 0)
	UNION ALL SELECT last_event - 1, 'delta', attempt, output, finished_at, NULL FROM turns
		WHERE seq = ?1 AND head > 0 AND status = 'completed' AND last_event = head + 2 AND last_event - 1 > ?2
		AND NOT EXISTS (SELECT 1 FROM events WHERE turn = ?1 AND seq = turns.head + 1)
	UNION ALL SELECT last_event, status, attempt, error, finished_at, detail FROM turns
		WHERE seq = ?1 AND head > 0 AND finished_at IS NOT NULL AND last_event > ?2
	ORDER BY seq LIMIT ?3`

func (s *sqliteStore) events(ctx context.Context, id string, after int64, limit int) (events []Event, err error) {
	var turn int64
	err = s.r.seq.QueryRowContext(ctx, id).Scan(&turn)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("queue: read the store: %w", err)
	}
	rows, err := s.r.events.QueryContext(ctx, turn, after, limit)
	if err != nil {
		return nil, fmt.Errorf("queue: read the store: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	text := 0
	for rows.Next() {
		// After a final event a reader asks whether the page was whole, so one that is not ends with another.
		if n := len(events); text >= pageOfText && !events[n-1].Type.Final() {
			break
		}
		e := Event{Turn: id}
		var at int64
		var detail []byte
		if err := rows.Scan(&e.Seq, &e.Type, &e.Attempt, &e.Text, &at, &detail); err != nil {
			return nil, fmt.Errorf("queue: read the store: %w", err)
		}
		e.At, e.Detail = fromMicros(at), json.RawMessage(detail)
		events = append(events, e)
		text += len(e.Text) + len(e.Detail)
	}
	return events, rows.Err()
}

func (s *sqliteStore) aged(
	ctx context.Context, before time.Time, after int64, limit int,
) (seqs []int64, next int64, err error) {
	rows, err := s.reads.QueryContext(ctx,
		`SELECT seq, created_at, finished_at FROM turns WHERE seq > ? ORDER BY seq LIMIT ?`, after, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("queue: read the store: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	looked, at := 0, now().UnixMicro()
	for rows.Next() {
		var seq, created int64
		var finished sql.NullInt64
		if err := rows.Scan(&seq, &created, &finished); err != nil {
			return nil, 0, fmt.Errorf("queue: read the store: %w", err)
		}
		if created >= before.UnixMicro() && created <= at {
			// What was accepted later cannot have finished earlier, whatever a clock that was set back meanwhile has
			// made of its times. A time to come says nothing: the clock was ahead then.
			return seqs, 0, nil
		}
		if finished.Valid && finished.Int64 < before.UnixMicro() {
			seqs = append(seqs, seq)
		}
		next = seq
		looked++
	}
	if looked < limit {
		next = 0
	}
	return seqs, next, rows.Err()
}

func (s *sqliteStore) waiting(yield func(waitingTurn)) (err error) {
	rows, err := s.reads.QueryContext(context.Background(), `SELECT seq, id, session, lane, created_at, not_before,
		mode = 'interrupt' FROM turns WHERE finished_at IS NULL ORDER BY seq`)
	if err != nil {
		return fmt.Errorf("queue: read the store: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var t waitingTurn
		if err := rows.Scan(&t.seq, &t.id, &t.session, &t.lane, &t.createdAt, &t.notBefore, &t.interrupt); err != nil {
			return fmt.Errorf("queue: read the store: %w", err)
		}
		yield(t)
	}
	return rows.Err()
}

func (s *sqliteStore) settings(yield func(settingKind, string, setting)) (err error) {
	rows, err := s.reads.QueryContext(context.Background(), `SELECT kind, name, paused, mode FROM settings`)
	if err != nil {
		return fmt.Errorf("queue: read the store: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var kind settingKind
		var name string
		var now setting
		if err := rows.Scan(&kind, &name, &now.paused, &now.mode); err != nil {
			return fmt.Errorf("queue: read the store: %w", err)
		}
		yield(kind, name, now)
	}
	return rows.Err()
}
