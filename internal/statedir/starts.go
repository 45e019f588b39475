package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// freeStarts is how many starts may fail one after another before the next one waits.
	freeStarts = 3
	// longestHold bounds the wait.
	longestHold = 30 * time.Second
	// forgiven is after how long earlier failures no longer count.
	forgiven = time.Hour
)

// FailedStarts counts the starts of one configuration and executable that have failed one after another, so that a
// supervisor that starts the gateway for ever is slowed down. The count begins anew with another configuration or
// executable, and with a start that succeeds. The zero value is no failed start.
type FailedStarts struct {
	// Of identifies the configuration and the executable.
	Of    string `json:"of"`
	Count int    `json:"count"`
	// Last is when the latest failed start ended, or when it began if its end was not recorded.
	Last   time.Time `json:"last"`
	Reason string    `json:"reason"`
	// Until is when the start that waits continues; zero while none waits.
	Until time.Time `json:"until,omitzero"`
}

// ReadFailedStarts returns the count of a state folder, the zero value when the last start succeeded or the
// file cannot be read.
func ReadFailedStarts(dir string) (f FailedStarts) {
	if readJSON(dir, StartsFile, &f) != nil {
		return FailedStarts{}
	}
	return f
}

// Before returns the failed starts that count for a start of the given configuration and executable now.
func (f FailedStarts) Before(of string, now time.Time) FailedStarts {
	if f.Of != of || now.Sub(f.Last) > forgiven || f.Last.After(now) { // the clock was set back
		return FailedStarts{Of: of}
	}
	f.Until = time.Time{}
	return f
}

// Hold is how long the next start waits: 0 for the first few, then twice as long each time.
func (f FailedStarts) Hold() time.Duration {
	if f.Count < freeStarts {
		return 0
	}
	return min(time.Second<<min(f.Count-freeStarts, 10), longestHold)
}

// Write writes the count to the state folder; the zero count removes the file. The caller holds the instance lock.
func (f FailedStarts) Write(dir string) error {
	if f.Count == 0 && f.Until.IsZero() {
		if err := os.Remove(filepath.Join(dir, StartsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("statedir: counting starts: %w", err)
		}
		return nil
	}
	if err := writeJSON(dir, StartsFile, f); err != nil {
		return fmt.Errorf("statedir: counting starts: %w", err)
	}
	return nil
}
