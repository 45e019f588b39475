package queue

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"
)

func TestFileThatIsNoStoreIsRefusedWithAdvice(t *testing.T) {
	path := storePath(t)
	require.NoError(t, os.WriteFile(path, []byte("this is a diary, and no database at all"), 0o600))
	_, err := Open(t.Context(), path, testConfig(t, echo))
	require.ErrorContains(t, err, "damaged or not a database")
	require.ErrorContains(t, err, "\nTry: move the file away or restore a backup")
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "this is a diary, and no database at all", string(kept))

	_, err = Open(t.Context(), filepath.Join(t.TempDir(), "none", "gateway.db"), testConfig(t, echo))
	require.ErrorContains(t, err, "\nTry: ")
}

func TestDamagedStoreIsRefusedWithAdvice(t *testing.T) {
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, echo))
	accept(t, q, "s", "x")
	closeQueue(t, q)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := 100; i < len(content); i++ {
		content[i] = 0xA5
	}
	require.NoError(t, os.WriteFile(path, content, 0o600))
	_, err = Open(t.Context(), path, testConfig(t, echo))
	require.ErrorContains(t, err, "damaged or not a database")
}

func TestStoreOfANewerVersionIsRefused(t *testing.T) {
	path := storePath(t)
	closeQueue(t, openQueue(t, path, testConfig(t, echo)))
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `PRAGMA user_version = 9999`)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	_, err = Open(t.Context(), path, testConfig(t, echo))
	require.ErrorContains(t, err, "newer version (schema 9999")
	require.ErrorContains(t, err, "\nTry: run the newer version")
}

// A newer version that is rolled back has left its columns behind.
func TestAStoreThatANewerVersionHasOnlyAddedToIsOpened(t *testing.T) {
	path := storePath(t)
	closeQueue(t, openQueue(t, path, testConfig(t, echo)))
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	for _, query := range []string{
		`ALTER TABLE turns ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'`,
		`CREATE TABLE moods (mood TEXT)`,
		`INSERT INTO schema_version (version_id, is_applied) VALUES (9999, 1)`,
	} {
		_, err = db.ExecContext(t.Context(), query)
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
	q := openQueue(t, path, testConfig(t, echo))
	q.Resume()
	turn := accept(t, q, "s", "x")
	require.Equal(t, Completed, wait(t, q, turn.ID).Status)
	closeQueue(t, q)
}

// Until a turn is started, and so until the gateway runs, an older binary can take the store back.
func TestTheStoreIsClaimedForThisVersionByTheFirstStart(t *testing.T) {
	path := storePath(t)
	needed := func() (version int) {
		db, err := connect(path, "ro")
		require.NoError(t, err)
		require.NoError(t, db.QueryRowContext(t.Context(), `PRAGMA user_version`).Scan(&version))
		require.NoError(t, db.Close())
		return version
	}
	q := openQueue(t, path, testConfig(t, echo))
	turn := accept(t, q, "s", "x")
	require.Equal(t, 0, needed())
	q.Resume()
	wait(t, q, turn.ID)
	require.Equal(t, compactLog, needed())
}

func TestStoreOfTheFirstVersionGetsItsRunsFromTheLog(t *testing.T) {
	path := storePath(t)
	db, err := connect(path, "rwc")
	require.NoError(t, err)
	dir, err := fs.Sub(migrations, "migrations")
	require.NoError(t, err)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithTableName("schema_version"),
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	require.NoError(t, err)
	_, err = p.UpTo(t.Context(), 1)
	require.NoError(t, err)
	now := strconv.FormatInt(time.Now().UnixMicro(), 10) // else it is pruned
	for _, query := range []string{
		`INSERT INTO turns VALUES (1, 'waits', 's', 'main', 'echo', 'queued', 0, 1, 'k1', 'retry', 1, NULL, NULL, 4, '', NULL, 'in', '')`,
		`INSERT INTO turns VALUES (2, 'done', 's', 'main', 'echo', 'completed', 2, 1, 'k2', 'retry', 1, 1, ` + now + `, 2, '', NULL, 'in', 'in')`,
		`INSERT INTO events VALUES (1, 1, 'started', 1, '', 1), (1, 2, 'interrupted', 1, '', 1), (1, 3, 'started', 1, '', 1), (1, 4, 'interrupted', 1, '', 1)`,
	} {
		_, err := db.ExecContext(t.Context(), query)
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())

	q := openQueue(t, path, testConfig(t, newGated()))
	for id, runs := range map[string]int{"waits": 2, "done": 2} {
		turn, err := q.Turn(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, runs, turn.Runs, id)
	}
}

func TestEveryCommitIsSynced(t *testing.T) {
	path := storePath(t)
	q := openQueue(t, path, testConfig(t, echo))
	conn := q.store.(*sqliteStore).w.conn
	var journal string
	var synchronous int
	require.NoError(t, conn.QueryRowContext(t.Context(), `PRAGMA journal_mode`).Scan(&journal))
	require.NoError(t, conn.QueryRowContext(t.Context(), `PRAGMA synchronous`).Scan(&synchronous))
	require.Equal(t, "wal", journal)
	require.Equal(t, 2, synchronous, "FULL")
	accept(t, q, "s", "x")
	closeQueue(t, q)
	require.NoFileExists(t, path+"-wal", "a clean close leaves one file")
}

func TestPathMayHoldWhatAnAddressMayNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "100% a?b#c d.db")
	closeQueue(t, openQueue(t, path, testConfig(t, echo)))
	require.FileExists(t, path)
}

func TestFailedCommitIsAnsweredAndLosesNothingAcknowledged(t *testing.T) {
	path := storePath(t)
	g := newGated()
	q, store := openFaulty(t, path, testConfig(t, g))
	q.Resume()
	turn := accept(t, q, "s", "x")
	work := g.next(t)

	full := errors.New("disk full")
	store.failWith(func([]operation) error { return full })
	_, _, err := q.Accept(t.Context(), NewTurn{Session: "t", Lane: "main", Agent: "a", Input: "y"})
	require.ErrorIs(t, err, full)
	require.Zero(t, q.Stats().Queued, "the reservation is given back")

	refused := make(chan struct{}, 1000)
	store.failWith(func(ops []operation) error {
		if _, ok := ops[0].(*endTurn); ok {
			refused <- struct{}{}
			return full
		}
		return nil
	})
	work.end <- nil
	<-refused
	<-refused
	stored, err := q.Turn(t.Context(), turn.ID)
	require.NoError(t, err)
	require.Equal(t, Running, stored.Status, "nobody sees an end that is not on disk")
	other := accept(t, q, "t", "y")
	g.next(t).end <- nil // its end has to wait as well
	store.failWith(nil)
	require.Equal(t, Completed, wait(t, q, turn.ID).Status)
	require.Equal(t, Completed, wait(t, q, other.ID).Status)
	closeQueue(t, q)
}

func TestStartThatCannotBeWrittenDoesNotRun(t *testing.T) {
	g := newGated()
	q, store := openFaulty(t, storePath(t), testConfig(t, g))
	turn := accept(t, q, "s", "x")
	tried := make(chan struct{}, 1000)
	store.failWith(func([]operation) error {
		tried <- struct{}{}
		return errors.New("disk full")
	})
	q.Resume()
	<-tried
	<-tried
	require.Empty(t, g.turns)
	store.failWith(nil)
	g.next(t).end <- nil
	require.Equal(t, 1, wait(t, q, turn.ID).Attempt)
	closeQueue(t, q)
}

func TestCloseEndsOnAStoreThatTakesNoWrites(t *testing.T) {
	path := storePath(t)
	g := newGated()
	cfg := testConfig(t, g)
	q, store := openFaulty(t, path, cfg)
	q.Resume()
	turn := accept(t, q, "s", "x")
	g.next(t)
	store.failWith(func([]operation) error { return errors.New("disk full") })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, q.Close(ctx), "could not be written")

	q = openQueue(t, path, cfg)
	stored, err := q.Turn(t.Context(), turn.ID)
	require.NoError(t, err)
	require.Equal(t, Queued, stored.Status)
	require.Equal(t, 1, stored.Attempt, "as after a crash")
}

func TestOperationThatTheStoreRejectsCostsOnlyItself(t *testing.T) {
	q, store := openFaulty(t, storePath(t), testConfig(t, echo))
	defer closeQueue(t, q)
	poison := errors.New("poison")
	store.failWith(func(ops []operation) error {
		for _, op := range ops {
			switch op := op.(type) {
			case *acceptTurn:
				if op.turn.Input == "poison" {
					return &rejectedError{op: op, err: poison}
				}
			case *endTurn:
				if op.turn.Output == "bad output" {
					return &rejectedError{op: op, err: poison}
				}
			}
		}
		return nil
	})
	var clients sync.WaitGroup
	for i := range 40 {
		clients.Go(func() {
			input := "fine"
			if i%4 == 0 {
				input = "poison"
			}
			_, _, err := q.Accept(t.Context(), NewTurn{
				Session: fmt.Sprint(i), Lane: "main", Agent: "a", Input: input,
			})
			if (input == "poison") != errors.Is(err, poison) {
				t.Errorf("%s: %v", input, err)
			}
		})
	}
	clients.Wait()
	require.Equal(t, 30, q.Stats().Queued)

	bad := accept(t, q, "bad", "bad output")
	behind := accept(t, q, "bad", "behind")
	q.Resume()
	turn := wait(t, q, bad.ID)
	require.Equal(t, Failed, turn.Status, "a result that cannot be written fails the turn")
	require.Contains(t, turn.Error, "poison")
	require.Equal(t, Completed, wait(t, q, behind.ID).Status, "and the session goes on")
	require.Len(t, log(t, q, bad.ID), 2)
}

func TestConstraintFailsOneOperationOfABatch(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	first := accept(t, q, "s", "x")
	same := first // the same id once more
	same.IdempotencyKey = "other"
	bad := &acceptTurn{turn: same}
	good := &acceptTurn{turn: Turn{
		ID: "good", Session: "s", Lane: "main", Agent: "a", Input: "y", IdempotencyKey: "good", CreatedAt: now(),
	}}
	err := q.store.commit([]operation{good, bad})
	var rejected *rejectedError
	require.ErrorAs(t, err, &rejected)
	require.Same(t, bad, rejected.op)
	_, err = q.Turn(t.Context(), "good")
	require.ErrorIs(t, err, ErrNotFound, "nothing of the batch was written")
	require.NoError(t, q.store.commit([]operation{good}), "the connection goes on")
}

func TestStartThatIsWrittenTwiceCountsOnce(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	turn := accept(t, q, "s", "x")
	var seq int64
	q.scheduler.look(func() { seq = q.scheduler.places[turn.ID].seq })
	start := &startTurn{seq: seq, at: now(), queued: &turn}
	bad := &acceptTurn{turn: turn} // its id exists
	require.Error(t, q.store.commit([]operation{start, bad}))
	require.NoError(t, q.store.commit([]operation{start}), "again, after the batch failed")
	stored, err := q.Turn(t.Context(), turn.ID)
	require.NoError(t, err)
	require.Equal(t, 1, stored.Attempt)
	require.Equal(t, stored, start.turn)
}

func TestFullDiskIsSaidToBeFull(t *testing.T) {
	q := openQueue(t, storePath(t), testConfig(t, echo))
	_, err := q.store.(*sqliteStore).w.conn.ExecContext(t.Context(), `PRAGMA max_page_count = 1`)
	require.NoError(t, err)
	input := string(make([]byte, 1<<20))
	_, _, err = q.Accept(t.Context(), NewTurn{Session: "s", Lane: "main", Agent: "a", Input: input})
	require.ErrorIs(t, err, ErrNoRoom)
	_, err = q.store.(*sqliteStore).w.conn.ExecContext(t.Context(), `PRAGMA max_page_count = 1000000`)
	require.NoError(t, err)
	accept(t, q, "s", input)
}

// Whoever opens the store reads the log from its beginning, so a restart has it begun anew.
func TestALogThatIsFoldedBeginsAnewUnlessSomebodyReadsFromIt(t *testing.T) {
	path := storePath(t)
	s, err := openSQLite(t.Context(), path)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	begun := func() (times int) { // as the log's head says
		head, err := os.ReadFile(path + "-wal")
		require.NoError(t, err)
		return int(binary.BigEndian.Uint32(head[12:]))
	}
	busy := func() (ms int) {
		require.NoError(t, s.w.conn.QueryRowContext(t.Context(), `PRAGMA busy_timeout`).Scan(&ms))
		return ms
	}
	first := accepted(t, s, newTurn("s", "x"))
	before := begun()

	reader, err := s.reads.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	require.NoError(t, err)
	var seen int64
	require.NoError(t, reader.QueryRowContext(t.Context(), `SELECT max(seq) FROM turns`).Scan(&seen))
	require.NoError(t, s.fold(t.Context()))
	require.NoError(t, s.foldRest())
	second := accepted(t, s, newTurn("s", "y"))
	require.Equal(t, before, begun(), "somebody reads from it")
	require.NoError(t, reader.QueryRowContext(t.Context(), `SELECT max(seq) FROM turns`).Scan(&seen))
	require.Equal(t, first, seen)
	require.NoError(t, reader.Rollback())

	require.NoError(t, s.fold(t.Context()))
	require.NoError(t, s.foldRest())
	third := accepted(t, s, newTurn("s", "z"))
	require.Equal(t, before+1, begun())
	require.EqualValues(t, busyWait.Milliseconds(), busy())
	require.NoError(t, s.reads.QueryRowContext(t.Context(), `SELECT count(*) FROM turns WHERE seq IN (?, ?, ?)`, first, second, third).Scan(&seen))
	require.EqualValues(t, 3, seen)
}

func TestEveryStatementOfTheWriterIsValid(t *testing.T) {
	s, err := openSQLite(t.Context(), storePath(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	for _, stmt := range s.w.stmts {
		_, err := stmt.prepare(t.Context())
		require.NoError(t, err, stmt.query)
	}
}
