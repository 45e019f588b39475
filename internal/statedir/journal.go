package statedir

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// journalLimit is the size in bytes at which the journal becomes OldJournalFile and a new one is begun.
	journalLimit = 256 << 10
	// journalBuffer is how many lines may wait for a slow disk before more are dropped.
	journalBuffer = 256
	// journalFlush is how long Close waits for a disk that does not answer.
	journalFlush = time.Second
)

// Journal is an append-only, bounded file of JSON lines that shows after a crash what the process was doing. It is best
// effort: writing never delays the caller, and on a full or slow disk lines are dropped and counted. The zero value is
// not usable: [OpenJournal] makes one.
type Journal struct {
	dir   string
	lines chan []byte
	ended chan struct{}

	mu      sync.Mutex
	closed  bool
	dropped int
}

// OpenJournal starts the journal of a state folder.
func OpenJournal(dir string) *Journal {
	j := &Journal{dir: dir, lines: make(chan []byte, journalBuffer), ended: make(chan struct{})}
	go j.write()
	return j
}

// Add appends a value as one line.
func (j *Journal) Add(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	select {
	case j.lines <- append(b, '\n'):
	default:
		j.dropped++
	}
}

// Close writes the lines that wait, for at most a second, and returns how many were dropped. Lines that are added later
// are dropped too.
func (j *Journal) Close() int {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.lines)
	}
	j.mu.Unlock()
	select {
	case <-j.ended:
	case <-time.After(journalFlush): // the disk hangs
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.dropped
}

func (j *Journal) write() {
	defer close(j.ended)
	for line := range j.lines {
		if err := j.append(line); err != nil {
			j.mu.Lock()
			j.dropped++
			j.mu.Unlock()
		}
	}
}

func (j *Journal) append(line []byte) error {
	path := filepath.Join(j.dir, JournalFile)
	if st, err := os.Stat(path); err == nil && st.Size() > journalLimit {
		_ = os.Rename(path, filepath.Join(j.dir, OldJournalFile))
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Close())
}

// ReadJournal calls each with the lines of the journal, oldest first. It skips a line that a crash has torn. A missing
// journal has no lines.
func ReadJournal(dir string, each func(line []byte)) error {
	for _, name := range []string{OldJournalFile, JournalFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("statedir: reading the journal: %w", err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			if json.Valid(lines.Bytes()) {
				each(lines.Bytes())
			}
		}
	}
	return nil
}
