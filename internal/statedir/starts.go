package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	startsName = "starts.json"
	// freeStarts is how many starts may fail one after another before the next one waits.
	freeStarts = 3
	// longestHold bounds the wait.
	longestHold = 30 * time.Second
	// forgiven is after how long earlier failures do not count any more.
	forgiven = time.Hour
)

// FailedStarts counts the starts of one configuration and executable that have failed one after another: a
// supervisor that starts the gateway for ever should not do so as fast as it can. Another configuration or
// executable begins anew, and so does a start that succeeds.
type FailedStarts struct {
	// Of tells one configuration and executable from another.
	Of    string `json:"of"`
	Count int    `json:"count"`
	// Last is when the latest one ended, or began when nobody wrote down how it ended.
	Last   time.Time `json:"last"`
	Reason string    `json:"reason"`
	// Until is set while a start waits: when it goes on.
	Until time.Time `json:"until,omitzero"`
}

// ReadFailedStarts returns the count of a state folder, the zero value when the last start succeeded or the
// file cannot be read.
func ReadFailedStarts(dir string) (f FailedStarts) {
	b, err := os.ReadFile(filepath.Join(dir, startsName))
	if err != nil || json.Unmarshal(b, &f) != nil {
		return FailedStarts{}
	}
	return f
}

// Before returns what counts against a start of the given configuration and executable now.
func (f FailedStarts) Before(of string, now time.Time) FailedStarts {
	if f.Of != of || now.Sub(f.Last) > forgiven || f.Last.After(now) { // the clock was set back
		return FailedStarts{Of: of}
	}
	f.Until = time.Time{}
	return f
}

// Hold is how long the next start waits: not at all for the first few, then twice as long each time.
func (f FailedStarts) Hold() time.Duration {
	if f.Count < freeStarts {
		return 0
	}
	return min(time.Second<<min(f.Count-freeStarts, 10), longestHold)
}

// Write puts the count into the state folder; the zero count removes it. The caller holds the instance lock.
func (f FailedStarts) Write(dir string) error {
	path := filepath.Join(dir, startsName)
	if f.Count == 0 && f.Until.IsZero() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("statedir: counting starts: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(f)
	if err == nil {
		err = os.WriteFile(path+".new", append(b, '\n'), 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("statedir: counting starts: %w", err)
	}
	return nil
}
