package main

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// What a client may see. All but answered are losses.
const (
	answered = "answered"
	refused  = "refused"  // nobody listened
	reset    = "reset"    // the connection was torn down
	cut      = "cut"      // it ended in the middle, or before an answer
	failed   = "5xx"      // an answer that says no
	late     = "late"     // no answer in time
	wrong    = "wrong"    // another answer than the right one
	missed   = "missed"   // an event of a stream did not come
	doubled  = "doubled"  // an event came twice
	notFound = "lost"     // a turn that was acknowledged is not there, or has not ended
	twice    = "twice"    // a turn was made or completed twice
	disorder = "disorder" // turns of a session did not run in the order in which they were sent
)

// losses are the columns of the report, in its order.
var losses = []string{refused, reset, cut, failed, late, wrong, missed, doubled, notFound, twice, disorder}

// tally counts what all clients of a run saw.
type tally struct {
	mu      sync.Mutex
	began   time.Time
	seen    map[string]int
	resumed int                // streams that were told to come back, and did
	answers []time.Duration    // when those since the last restart came, since began
	slowest time.Duration      // of all answers
	example map[string]string  // the first of each loss, for whoever looks for its cause
	turns   map[string]sentTag // acknowledged, by id
	tags    []string           // acknowledged by their key, which is the tag
}

// sentTag is what a turn that was acknowledged must have become.
type sentTag struct {
	session string
	number  int // in its session
	tag     string
}

func newTally() *tally {
	return &tally{began: time.Now(), seen: map[string]int{}, example: map[string]string{}, turns: map[string]sentTag{}}
}

// answer counts a right answer that took so long.
func (t *tally) answer(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen[answered]++
	t.answers = append(t.answers, time.Since(t.began))
	t.slowest = max(t.slowest, took)
}

func (t *tally) lose(kind, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen[kind]++
	if _, ok := t.example[kind]; !ok {
		t.example[kind] = why
	}
}

func (t *tally) acknowledged(id string, s sentTag) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turns[id] = s
}

func (t *tally) acknowledgedByKey(tag string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tags = append(t.tags, tag)
}

func (t *tally) comeBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resumed++
}

// failure counts an error of a connection.
func (t *tally) failure(err error) {
	var timeout net.Error
	var no *refusal
	switch {
	case errors.As(err, &no) && no.code == "UNAVAILABLE":
		t.lose(failed, err.Error())
	case errors.As(err, &no):
		t.lose(wrong, err.Error())
	case errors.Is(err, syscall.ECONNREFUSED):
		t.lose(refused, err.Error())
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		t.lose(reset, err.Error())
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		t.lose(late, err.Error())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		t.lose(cut, err.Error())
	default:
		t.lose(cut, err.Error())
	}
}

// lost is how many losses there were.
func (t *tally) lost() (n int) {
	for _, kind := range losses {
		n += t.seen[kind]
	}
	return n
}

// gap is the longest time without any answer in a window that begins with a restart. What came before the end of the
// window is forgotten.
func (t *tally) gap(began, ended time.Time) time.Duration {
	from, to := began.Sub(t.began), ended.Sub(t.began)
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.answers)
	longest, last := time.Duration(0), from
	for i, at := range t.answers {
		if at > to {
			t.answers = slices.Clone(t.answers[i:])
			break
		}
		if at > from {
			longest, last = max(longest, at-last), at
		}
	}
	return max(longest, to-last)
}

// percentile of values, which it sorts; 0 of none.
func percentile(values []time.Duration, p float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(p*float64(len(values))), len(values)-1)]
}
