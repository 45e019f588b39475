package queue

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
)

// inspect looks through the whole store for damage, beside everything else. It is done after a generation that
// did not close the store, because that is when a disk, or a machine, may have failed. What it finds is
// logged, and counted in [Stats]: what can still be read and written goes on.
func (q *Queue) inspect(ctx context.Context) {
	err := q.store.check(ctx)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, ErrDamaged):
		q.scheduler.ask(func() { q.scheduler.stats.Damaged = true })
		q.cfg.Log.Error().Err(err).
			Msg("the store is damaged. Try: stop the gateway and restore a backup, or recover what is left with sqlite3 .recover")
	case err != nil:
		q.cfg.Log.Error().Err(err).Msg("the check of the store after a crash failed")
	default:
		q.cfg.Log.Info().Msg("the last gateway did not close the store; the check found no damage")
	}
}

// ErrNoIndex: the store was left by a crash without the index of its log, which only a start may write again.
var ErrNoIndex = errors.New("queue: the log of the store has no index")

// Inspection is what [Inspect] found in a store that is whole. Schema is the version of its tables, Known the newest
// that this binary knows.
type Inspection struct{ Turns, Schema, Known int64 }

// Inspect looks through the store at path, which no queue has open. It changes and creates no file, so that whoever
// may read it can ask. [ErrDamaged] when it finds any damage, [ErrNoIndex] when it cannot look without writing, and
// [fs.ErrNotExist] when there is no store.
func Inspect(ctx context.Context, path string) (found Inspection, err error) {
	if _, err := os.Stat(path); err != nil {
		return found, fmt.Errorf("queue: inspect the store: %w", err)
	}
	db, err := connectReading(path)
	if err != nil {
		return found, openError(path, err)
	}
	defer func() {
		if err = errors.Join(err, db.Close()); ctx.Err() != nil {
			err = ctx.Err() // what was interrupted says so in its own words
		}
	}()
	if err := quickCheck(ctx, db); err != nil {
		return found, openError(path, err)
	}
	if found.Known, err = newestSchema(); err != nil {
		return found, err
	}
	// A new file has no tables yet: a start was cut short.
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE name = 'turns'`).Scan(&found.Schema); err != nil || found.Schema == 0 {
		return found, openErrorUnlessNil(path, err)
	}
	var needed int64
	err = db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM turns), (SELECT max(version_id) FROM schema_version), (SELECT user_version FROM pragma_user_version)`).
		Scan(&found.Turns, &found.Schema, &needed)
	if err == nil && needed > found.Known {
		err = &newerSchemaError{needed: needed, known: found.Known}
	}
	return found, openErrorUnlessNil(path, err)
}

func openErrorUnlessNil(path string, err error) error {
	if err == nil {
		return nil
	}
	return openError(path, cmp.Or(named(err), err))
}

// connectReading opens a store that nobody writes. SQLite would create the side files of its log even for who only
// reads; a log that is not there, or empty, has nothing to add to the file, and one that is there is read beside
// an index that is not written.
func connectReading(path string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	query := url.Values{"mode": {"ro"}, "_error_rc": {"1"}, "_pragma": {"busy_timeout(5000)"}}
	if log, err := os.Stat(path + "-wal"); err != nil || log.Size() == 0 {
		query.Set("immutable", "1")
	} else if _, err := os.Stat(path + "-shm"); err != nil {
		return nil, ErrNoIndex
	} else {
		query.Set("readonly_shm", "1")
	}
	name.RawQuery = query.Encode()
	return sql.Open("sqlite", name.String())
}
