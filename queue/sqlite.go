package queue

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"gateway/internal/advice"
	"gateway/internal/failpoint"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	busyWait = 5 * time.Second       // for a lock that another connection has
	foldWait = 20 * time.Millisecond // the same, while commits wait for a log that is folded
)

// sqliteStore is a [Store] in one SQLite file: a write-ahead log, synced at every commit, one connection
// that writes, and a few that read.
type sqliteStore struct {
	generation int64
	unclosed   bool // the generation before did not close it
	files      []file
	writes     *sql.DB // one connection
	reads      *sql.DB
	r          reader
	w          *writer
}

// openSQLite opens the file at path, created when it is missing, and advances its epoch.
func openSQLite(ctx context.Context, path string) (s *sqliteStore, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("queue: open the store: %w", err)
	}
	defer func() {
		if err != nil {
			if s != nil {
				_ = s.close()
			}
			s, err = nil, openError(path, err)
		}
	}()
	// SQLite gives its side files the mode of the file itself.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = errors.Join(f.Chmod(0o600), f.Close())
	if err != nil {
		return nil, err
	}
	// fdatasync writes all that reading the data back needs, and spares the journal of the file system.
	if _, err := sqlite.Fdatasync(true); err != nil && !errors.Is(err, sqlite.ErrFdatasyncUnavailable) {
		return nil, err
	}
	s = &sqliteStore{}
	// Until the epoch is set nothing is acknowledged, so nothing has to be synced: the next commit syncs it all.
	if s.writes, err = connect(path, "rw", "journal_mode(WAL)", "synchronous(NORMAL)",
		"wal_autocheckpoint(4000)", "journal_size_limit(67108864)", "cache_size(-32768)"); err != nil {
		return s, err
	}
	s.writes.SetMaxOpenConns(1)
	if err := migrate(ctx, s.writes); err != nil {
		if damage := quickCheck(ctx, s.writes); errors.Is(damage, ErrDamaged) {
			err = damage // a version that cannot be read looks like one that is not there
		}
		return s, err
	}
	if err := s.writes.QueryRowContext(ctx, `SELECT NOT closed FROM meta`).Scan(&s.unclosed); err != nil {
		return s, err
	}
	if err := s.writes.QueryRowContext(ctx,
		`UPDATE meta SET epoch = epoch + 1, closed = 0 RETURNING epoch`).Scan(&s.generation); err != nil {
		return s, err
	}
	if _, err := s.writes.ExecContext(ctx, `PRAGMA synchronous = FULL`); err != nil {
		return s, err
	}
	if s.w, err = newWriter(ctx, s.writes, s.generation); err != nil {
		return s, err
	}
	if s.reads, err = connect(path, "ro", "cache_size(-8192)"); err != nil {
		return s, err
	}
	s.reads.SetMaxOpenConns(4)
	s.reads.SetMaxIdleConns(4)
	if s.r, err = newReader(ctx, s.reads); err != nil {
		return s, err
	}
	for _, path := range []string{path, path + "-wal"} {
		st, err := os.Stat(path)
		if err != nil {
			return s, err
		}
		s.files = append(s.files, file{path, st})
	}
	return s, nil
}

// file is one that the store has open, under the name by which the next start will look for it.
type file struct {
	path string
	info os.FileInfo
}

// inPlace reports whether what is written will be found again. A file that was removed or replaced can still be
// written to, and goes with the process.
func (s *sqliteStore) inPlace() error {
	for _, f := range s.files {
		if st, err := os.Stat(f.path); err != nil || !os.SameFile(st, f.info) {
			return fmt.Errorf("%w: %s was removed or replaced", ErrUnusable, f.path)
		}
	}
	return nil
}

func connect(path, mode string, pragmas ...string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	name.RawQuery = url.Values{
		"mode": {mode}, "_error_rc": {"1"}, "_pragma": append(pragmas, fmt.Sprintf("busy_timeout(%d)", busyWait.Milliseconds())),
	}.Encode()
	return sql.Open("sqlite", name.String())
}

// migrate brings the schema up to the newest version that this binary knows. Migrations only add, so that
// what an older binary wrote stays as it was. A restart finds the schema as it should be, and asks goose for nothing:
// that would be most of the time in which nobody has the store open.
func migrate(ctx context.Context, db *sql.DB) error {
	known, err := newestSchema()
	if err != nil {
		return err
	}
	var needed, stored int64
	if err := db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&needed); err != nil {
		return err
	}
	if needed > known {
		return &newerSchemaError{needed: needed, known: known}
	}
	err = db.QueryRowContext(ctx, `SELECT max(version_id) FROM schema_version WHERE is_applied`).Scan(&stored)
	if err == nil && stored >= known {
		return nil
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir,
		goose.WithTableName("schema_version"), goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// newerSchemaError: migrations add and do not change, so that a store which a newer version has opened can be
// opened by this one again: a successor may be taken back. A migration that cannot be so sets the database's
// user_version to the oldest schema that may use it from then on.
type newerSchemaError struct{ needed, known int64 }

func (e *newerSchemaError) Error() string {
	return fmt.Sprintf("it was written by a newer version (schema %d, this binary knows %d)", e.needed, e.known)
}

// newestSchema is the newest version of the tables that this binary knows.
func newestSchema() (newest int64, err error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	for _, name := range names {
		version, err := goose.NumericComponent(filepath.Base(name))
		if err != nil {
			return 0, err
		}
		newest = max(newest, version)
	}
	return newest, err
}

// openError says what is wrong with the file and what to try.
func openError(path string, err error) error {
	try := "check that the folder exists, is writable and has room"
	if _, newer := errors.AsType[*newerSchemaError](err); newer {
		try = "run the newer version, or restore a backup from before the upgrade"
	}
	switch {
	case code(err) == sqlite3.SQLITE_NOTADB, code(err) == sqlite3.SQLITE_CORRUPT, errors.Is(err, ErrDamaged):
		return advice.Errorf("queue: the store %s is damaged or not a database: %w", path, err).Try("move the file away or restore a backup")
	case code(err) == sqlite3.SQLITE_BUSY:
		try = "stop the other process that uses the file"
	}
	return advice.Errorf("queue: open the store %s: %w", path, err).Try(try)
}

// named makes what the error means to those above something that [errors.Is] finds; nil when it means nothing to
// them.
func named(err error) error {
	var name error
	switch code(err) {
	case sqlite3.SQLITE_FULL:
		name = ErrNoRoom
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		name = ErrDamaged
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN:
		name = ErrUnusable
	default:
		return nil
	}
	return fmt.Errorf("%w: %w", name, err)
}

// code is the primary SQLite result code of the error, 0 when it has none.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

func (s *sqliteStore) epoch() int64 { return s.generation }

func (s *sqliteStore) close() error {
	err := s.endWrites()
	// The writer goes last: the last connection to close folds the write-ahead log into the file.
	return errors.Join(err, s.letGo(), closeDB(s.writes))
}

func (s *sqliteStore) handOver() error { return errors.Join(s.endWrites(), closeDB(s.writes)) }

// letGo closes the connections that can only read. While they are open no other's close folds the log.
func (s *sqliteStore) letGo() error { return closeDB(s.reads) }

// endWrites says that this generation has ended well. It need not be on disk: were it lost with the power, the next
// generation would look the store through for nothing.
func (s *sqliteStore) endWrites() error {
	if s.w == nil {
		return nil
	}
	// On a disk that takes no writes it stays as it is, and the next generation looks the store through.
	_, _ = s.w.conn.ExecContext(s.w.ctx(), `PRAGMA synchronous = NORMAL`)
	_, _ = s.w.conn.ExecContext(s.w.ctx(), `UPDATE meta SET closed = 1 WHERE epoch = ?`, s.generation)
	return s.w.close()
}

func closeDB(db *sql.DB) error {
	if db == nil {
		return nil
	}
	return db.Close()
}

// fold uses a connection of its own, so that commits wait only where both need the same lock.
func (s *sqliteStore) fold(ctx context.Context) error {
	db, err := connect(s.files[0].path, "rw")
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`)
	return errors.Join(err, db.Close())
}

// foldRest takes the time of a sync, and at most foldWait more for who reads from the log just now.
func (s *sqliteStore) foldRest() (err error) {
	for _, pragma := range []string{
		fmt.Sprintf(`busy_timeout = %d`, foldWait.Milliseconds()), `wal_checkpoint(RESTART)`, fmt.Sprintf(`busy_timeout = %d`, busyWait.Milliseconds()),
	} {
		_, failed := s.w.conn.ExecContext(s.w.ctx(), `PRAGMA `+pragma)
		err = errors.Join(err, failed)
	}
	return err
}

func (s *sqliteStore) crashed() bool { return s.unclosed }

func (s *sqliteStore) check(ctx context.Context) error { return quickCheck(ctx, s.reads) }

// settle is part of Open, before anything else uses the store.
func (s *sqliteStore) settle(
	maxAttempts int, at time.Time, pause func(attempts int) time.Duration,
) (n settled, err error) {
	err = s.w.transaction(func() error {
		left, err := s.w.leftRunning()
		if err != nil {
			return err
		}
		for _, t := range left {
			now, err := s.w.settle(t, maxAttempts, at, pause)
			if err != nil {
				return err
			}
			if now.Final() {
				n.failed++
			} else {
				n.requeued++
			}
		}
		failpoint.At("store.settle.applied")
		return nil
	})
	failpoint.At("store.settle.committed")
	return n, err
}
