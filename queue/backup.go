package queue

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gateway/internal/advice"
)

// BackupPart names the file that a backup is written to until it is whole.
func BackupPart(to string) string { return to + ".part" }

// Backup writes a copy of the store at path to a file, which appears only when it is whole, checked and on
// disk. It takes what is committed when it begins and holds up nobody: the gateway may go on working
// meanwhile, in this process or in another. It returns how many turns the copy holds. An existing file is
// replaced only when replace says so.
func Backup(ctx context.Context, path, to string, replace bool) (turns int64, err error) {
	if _, err := os.Stat(to); !replace && !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return 0, advice.Errorf("queue: backup to %s: %w", to, err).Try("another file, or --force")
	}
	part := BackupPart(to)
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, advice.Errorf("queue: backup to %s: %w", to, err).Try("another folder")
	}
	defer func() { _ = os.Remove(part) }()
	// Created here, so that nobody else can read it from its first byte on.
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, advice.Errorf("queue: backup to %s: %w", to, err).Try("a folder that can be written to")
	}
	defer func() { _ = f.Close() }()
	if err := copyStore(ctx, path, part); err != nil {
		return 0, advice.Errorf("queue: backup of %s: %w", path, err).Tryf("check that there is room at %s", filepath.Dir(to))
	}
	if turns, err = checkStore(ctx, part); err != nil {
		return 0, advice.Errorf("queue: the backup of %s is damaged: %w", path, err).Try("another disk")
	}
	if err := f.Sync(); err != nil {
		return 0, advice.Errorf("queue: backup to %s: %w", to, err).Try("another disk")
	}
	if err := os.Rename(part, to); err != nil {
		return 0, advice.Errorf("queue: backup to %s: %w", to, err).Try("another folder")
	}
	return turns, syncDir(filepath.Dir(to))
}

func copyStore(ctx context.Context, path, to string) error {
	db, err := connect(path, "ro")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, to)
	return err
}

func checkStore(ctx context.Context, path string) (turns int64, err error) {
	db, err := connect(path, "ro")
	if err != nil {
		return 0, err
	}
	defer func() { _ = db.Close() }()
	if err := quickCheck(ctx, db); err != nil {
		return 0, err
	}
	return turns, db.QueryRowContext(ctx, `SELECT count(*) FROM turns`).Scan(&turns)
}

// quickCheck looks for damage in the trees of the file: ErrDamaged when it finds any.
func quickCheck(ctx context.Context, db *sql.DB) error {
	var found string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&found); err != nil {
		return cmp.Or(named(err), err)
	}
	if found != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, found)
	}
	return nil
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("queue: folder %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}
