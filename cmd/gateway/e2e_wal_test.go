package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/statedir"
)

// The layout of SQLite's write-ahead log.
const (
	walHeader = 32
	walFrame  = 24 + 4096
)

const walConfig = `
turns: { max_attempts: 100 }
agents: { slow: { type: command, command: [sh, -c, "sleep 0.01; cat"] } }
`

// remains is what a gateway that was killed in the middle of its work has left on disk.
type remains struct {
	db, log  []byte
	promises []promise
	synced   []int // the log's length when the promise was made; 0 when it was in the file itself by then
	sent     map[string]bool
}

// killInTheMiddle lets a gateway fold some turns into its file, then has it killed while it takes more.
func killInTheMiddle(t *testing.T) (r remains) {
	h := newHouse(t, walConfig)
	var record history
	r.sent = make(map[string]bool)
	var mu sync.Mutex
	logPath := filepath.Join(h.state(), statedir.StoreFile+"-wal")
	say := func(address string, s, i int) error {
		text, session := fmt.Sprintf("%d.%d", s, i), fmt.Sprintf("s%d", s)
		mu.Lock()
		r.sent[text] = true
		mu.Unlock()
		a, _, err := ask(t.Context(), http.DefaultClient, address, session, "slow", text, text, true)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		record.acknowledged(a.ID, session, text)
		synced := 0
		if st, err := os.Stat(logPath); err == nil && i >= 5 {
			synced = int(st.Size())
		}
		r.synced = append(r.synced, synced)
		return nil
	}
	h.start()
	for i := range 5 {
		for s := range 3 {
			require.NoError(t, say(h.waitState("Running").Address, s, i))
		}
	}
	h.judge(&record)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	require.NoFileExists(t, logPath)
	h.start()
	address := h.waitState("Running").Address
	var clients sync.WaitGroup
	for s := range 3 {
		clients.Go(func() {
			for i := 5; say(address, s, i) == nil; i++ {
			}
		})
	}
	h.eventually("many turns are acknowledged", func() bool { return record.len() > 60 })
	h.signal(syscall.SIGKILL)
	h.wait()
	clients.Wait()
	var err error
	r.db, err = os.ReadFile(filepath.Join(h.state(), statedir.StoreFile))
	require.NoError(t, err)
	r.log, err = os.ReadFile(logPath)
	require.NoError(t, err)
	r.promises = record.promises
	return r
}

// startOn runs a gateway on the file and a log.
func (r remains) startOn(t *testing.T, log []byte) *house {
	h := newHouse(t, walConfig)
	require.NoError(t, os.MkdirAll(h.state(), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(h.state(), statedir.StoreFile), r.db, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(h.state(), statedir.StoreFile+"-wal"), log, 0o600))
	h.start()
	return h
}

// A disk that keeps its word can lose only what was not synced, and the gateway syncs before it acknowledges. So
// what was acknowledged before the log had the length at which it is cut here has to be there; a cut further to the
// front is a disk that lies, after which what is left must still be a story that has happened: each session a
// beginning of what it was, nothing in it twice, out of order or invented.
func TestALogThatIsCutAnywhereLeavesAStoryThatHasHappened(t *testing.T) {
	r := killInTheMiddle(t)
	frames := (len(r.log) - walHeader) / walFrame
	require.Greater(t, frames, 50)
	cuts := []int{0, walHeader / 2, walHeader, len(r.log) - 1}
	for range 3 {
		cuts = append(cuts, walHeader+rand.N(frames)*walFrame, walHeader+rand.N(frames)*walFrame+1+rand.N(walFrame-1))
	}
	for _, cut := range cuts {
		t.Run(fmt.Sprint(cut, " of ", len(r.log)), func(t *testing.T) {
			t.Parallel()
			h := r.startOn(t, r.log[:cut])
			var record history
			present := make(map[string]bool)
			for _, turns := range h.account("").sessions {
				for _, turn := range turns {
					present[turn.ID] = true
					require.True(t, r.sent[turn.Key], "nobody sent %q", turn.Key)
				}
			}
			ended := make(map[string]bool) // sessions whose story has ended
			for i, p := range r.promises {
				if !present[p.id] {
					require.Greater(t, r.synced[i], cut, "%s was acknowledged when the log was shorter", p.want)
					ended[p.session] = true
					continue
				}
				require.False(t, ended[p.session], "%s is there, and one before it is not", p.want)
				record.acknowledged(p.id, p.session, p.want)
			}
			h.judge(&record)
			t.Logf("%d of %d turns are left", record.len(), len(r.promises))
			a, _, err := ask(t.Context(), http.DefaultClient, h.waitState("Running").Address, "s0", "slow", "goes on", "goes on", false)
			require.NoError(t, err)
			require.Equal(t, "goes on", a.text())
			h.signal(syscall.SIGTERM)
			require.Equal(t, 0, h.wait())
		})
	}
}

// What a power cut leaves behind the last sync may be anything. None of it is taken for a write, and nothing that
// was acknowledged is lost.
func TestWhatFollowsTheLastSyncInTheLogCostsNothing(t *testing.T) {
	r := killInTheMiddle(t)
	whole := walHeader + (len(r.log)-walHeader)/walFrame*walFrame
	r.log = r.log[:whole]
	last := r.log[whole-walFrame:]
	commit := slices.Clone(last) // a whole commit of a single page, but for its checksum
	copy(commit[4:], []byte{0, 0, 0, 1})
	torn := slices.Clone(last)
	copy(torn[walFrame/2:], strings.Repeat("torn", walFrame))
	noise := make([]byte, 3*walFrame+77)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for name, tail := range map[string][]byte{
		"noise": noise, "zeroes": make([]byte, 2*walFrame), "half a frame": last[:walFrame/2], "a frame without its page": last[:24],
		"the last frame again": last, "a torn frame": torn, "a commit with a wrong checksum": commit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := r.startOn(t, slices.Concat(r.log, tail))
			record := history{}
			for _, p := range r.promises {
				record.acknowledged(p.id, p.session, p.want)
			}
			h.judge(&record)
			h.signal(syscall.SIGTERM)
			require.Equal(t, 0, h.wait())
		})
	}
}
