// Package child starts the programs that the gateway waits for, and reaps, as process 1 of a container, the
// processes that nobody else waits for.
//
// The invariant: the exit status of a program that was started with [Start] is read by its [Wait] and by
// nobody else.
package child

import (
	"os/exec"
	"sync"
)

// ours is the table of this process: the kernel keeps one list of children for each process, so there is
// one here.
var ours = newTable()

// table knows the children that somebody waits for, so that the others are known too.
//
// A zombie that is not in the table may still be ours: the child of a start that has forked and not come
// back to say so. What is certain is found in two looks with a wait between them. The first one notes the
// zombies that are not in the table; then every start that had begun before ends, and what it has started
// is struck off the note. What is left was there before the second look and belongs to no start before the
// first, and a start after it cannot have forked it, because a zombie's number is not given out again: it is
// an orphan. A start that hangs holds up the next look, and no other start.
type table struct {
	mu sync.Mutex
	// pids counts the children that are started and not yet waited for. Two may have the same number for a
	// moment: one has been waited for and is about to be taken out, the next one was just started.
	pids map[int]int
	// suspects are zombies that may be orphans; nil when nobody looks.
	suspects map[int]struct{}
	// current is the era that a start joins.
	current *era
}

// era is the starts between two looks.
type era struct {
	starting int
	past     bool          // no further start joins
	ended    chan struct{} // closed once it is past and nothing of it is starting
}

func newTable() *table {
	return &table{pids: make(map[int]int), current: &era{ended: make(chan struct{})}}
}

// Start starts the program like [exec.Cmd.Start]. Somebody must call [Wait].
func Start(cmd *exec.Cmd) error { return ours.start(cmd) }

// Wait waits for a program that [Start] has started, like [exec.Cmd.Wait].
func Wait(cmd *exec.Cmd) error { return ours.wait(cmd) }

func (t *table) start(cmd *exec.Cmd) error {
	joined := t.begin()
	err := cmd.Start()
	if err != nil {
		t.end(joined, 0)
		return err
	}
	t.end(joined, cmd.Process.Pid)
	return nil
}

func (t *table) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	pid := cmd.Process.Pid
	if t.pids[pid]--; t.pids[pid] <= 0 {
		delete(t.pids, pid)
	}
	return err
}

func (t *table) begin() *era {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current.starting++
	return t.current
}

// end takes note of what the start has started; 0 when it failed. A start that failed may have had a child
// and waited for it, whose number is anybody's by now, so a look in progress begins again.
func (t *table) end(e *era, pid int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pid == 0 {
		clear(t.suspects)
	} else {
		t.pids[pid]++
		delete(t.suspects, pid)
	}
	e.starting--
	e.endIfOver()
}

func (e *era) endIfOver() {
	if e.past && e.starting == 0 {
		close(e.ended)
	}
}

// suspect notes the zombies that zombies lists and that are not in the table. Every start that had begun
// has ended once settled is closed.
func (t *table) suspect(zombies func() ([]int, error)) (settled <-chan struct{}, n int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, err := zombies()
	if err != nil {
		return nil, 0, err
	}
	t.suspects = make(map[int]struct{})
	for _, pid := range found {
		if t.pids[pid] == 0 {
			t.suspects[pid] = struct{}{}
		}
	}
	e := t.current
	e.past = true
	e.endIfOver()
	t.current = &era{ended: make(chan struct{})}
	return e.ended, len(t.suspects), nil
}

// confirm calls reap with each suspect that is left, and ends the look. No start is noted meanwhile.
func (t *table) confirm(reap func(pid int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for pid := range t.suspects {
		reap(pid)
	}
	t.suspects = nil
}
