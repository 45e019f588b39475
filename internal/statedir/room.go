package statedir

import (
	"errors"
	"os"

	"gateway/internal/advice"
)

// roomNeeded is what a start writes at most before it serves, in bytes.
const roomNeeded = 256 << 10

// Room reports whether the disk of a state folder has room for a start. It writes a file and removes it.
func Room(dir string) error {
	f, err := os.CreateTemp(dir, "room-")
	if err != nil {
		return advice.Errorf("the state folder cannot be written: %w", err).Try("make room")
	}
	_, err = f.Write(make([]byte, roomNeeded))
	if err := errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return advice.Errorf("the disk of the state folder is too full for a start: %w", err).Try("make room")
	}
	return nil
}
