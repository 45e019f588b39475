package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// move is one operation on a session, as somebody outside of the queue sees it.
type move struct {
	session, turn string
	kind          string // accept, begin, end, cancel, retry or crash; a crash is every session's
}

// fifo is what a session promises, as a model that porcupine holds a history against: a line of turns, of which the
// first that waits begins, alone, and leaves when it has ended. The state is the turns in the order of acceptance, each
// with a mark: waits, runs, or over (failed or cancelled, and may be given another try). Who is completed is gone.
// The output of a move is the status of the turn that it was answered with; a crash has none.
var fifo = porcupine.Model{
	Partition: func(history []porcupine.Operation) (sessions [][]porcupine.Operation) {
		bySession := make(map[string][]porcupine.Operation)
		for _, op := range history {
			if m := op.Input.(move); m.kind != "crash" {
				bySession[m.session] = append(bySession[m.session], op)
			}
		}
		for _, ops := range bySession {
			for _, op := range history {
				if op.Input.(move).kind == "crash" {
					ops = append(ops, op)
				}
			}
			sessions = append(sessions, ops)
		}
		return sessions
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		status, _ := output.(Status)
		return step(strings.Fields(state.(string)), input.(move), status)
	},
}

const waits, runs, over = "waits:", "runs:", "over:"

func step(line []string, m move, answer Status) (ok bool, state string) {
	at := slices.IndexFunc(line, func(s string) bool { return strings.HasSuffix(s, ":"+m.turn) })
	is := func(marks ...string) bool {
		return at >= 0 && slices.ContainsFunc(marks, func(mark string) bool { return strings.HasPrefix(line[at], mark) })
	}
	first := func(mark string) int {
		return slices.IndexFunc(line, func(s string) bool { return strings.HasPrefix(s, mark) })
	}
	mark := func(mark string) string {
		line[at] = mark + m.turn
		return strings.Join(line, " ")
	}
	unchanged := strings.Join(line, " ")
	switch m.kind {
	case "accept":
		return at < 0, strings.Join(append(line, waits+m.turn), " ")
	case "begin":
		if first(runs) < 0 && at >= 0 && first(waits) == at {
			return true, mark(runs)
		}
	case "end":
		switch {
		case is(runs) && answer == Completed:
			return true, strings.Join(slices.Delete(line, at, at+1), " ")
		case is(runs) && answer == Failed:
			return true, mark(over)
		}
	case "cancel":
		if answer == Cancelled && is(waits, runs) {
			return true, mark(over)
		}
		return answer == Completed && at < 0 || answer == Failed && is(over), unchanged
	case "retry":
		if answer == Queued && is(over) {
			return true, mark(waits)
		}
		return answer != Queued && !is(over), unchanged
	case "crash":
		if at = first(runs); at >= 0 {
			line[at] = waits + strings.TrimPrefix(line[at], runs)
		}
		return true, strings.Join(line, " ")
	}
	return false, unchanged
}

// said is a history in which one thing follows the other.
func said(moves ...string) (history []porcupine.Operation) {
	for i, line := range moves {
		f := append(strings.Fields(line), "", "") // kind, turn, answer
		history = append(history, porcupine.Operation{
			Input: move{session: "s", turn: f[1], kind: f[0]}, Output: Status(f[2]), Call: int64(10 * i), Return: int64(10*i + 5),
		})
	}
	return history
}

func TestTheModelAllowsWhatTheQueueMayDo(t *testing.T) {
	for _, good := range [][]string{
		{"accept a", "begin a", "end a completed", "accept b", "begin b", "end b completed"},
		{"accept a", "accept b", "cancel a cancelled", "begin b", "retry a queued", "end b completed", "begin a", "end a completed"},
		{"accept a", "accept b", "begin a", "crash", "begin a", "end a completed", "begin b", "crash", "crash", "begin b"},
		{"accept a", "begin a", "end a failed", "cancel a failed", "retry a queued", "begin a", "cancel a cancelled", "retry a queued", "retry a running"},
		{"accept a", "begin a", "end a completed", "cancel a completed", "retry a completed"},
	} {
		require.True(t, porcupine.CheckOperations(fifo, said(good...)), good)
	}
	swapped := said("accept a", "accept b", "begin b", "end b completed", "begin a")
	require.False(t, porcupine.CheckOperations(fifo, swapped))
	swapped[0].Return = swapped[1].Return // at the same time, so that nobody knows which was first
	require.True(t, porcupine.CheckOperations(fifo, swapped))
}

// A checker that cannot fail checks nothing.
func TestTheModelForbidsWhatTheQueueMustNotDo(t *testing.T) {
	for why, bad := range map[string][]string{
		"a turn began that nobody sent":        {"accept a", "begin b"},
		"a later turn began first":             {"accept a", "accept b", "begin b"},
		"a turn was passed over":               {"accept a", "accept b", "accept c", "begin a", "end a completed", "begin c"},
		"two ran at once":                      {"accept a", "accept b", "begin a", "begin b"},
		"one ran twice without a crash":        {"accept a", "begin a", "begin a"},
		"one began again after its end":        {"accept a", "begin a", "end a completed", "begin a"},
		"one began again after end and crash":  {"accept a", "begin a", "end a completed", "crash", "begin a"},
		"one was completed twice":              {"accept a", "begin a", "end a completed", "end a completed"},
		"one was completed that did not run":   {"accept a", "end a completed"},
		"a crash lost one":                     {"accept a", "accept b", "begin a", "crash", "begin b"},
		"a cancelled one began":                {"accept a", "cancel a cancelled", "begin a"},
		"a cancelled one was completed":        {"accept a", "begin a", "cancel a cancelled", "end a completed"},
		"one that waits could not be given up": {"accept a", "cancel a completed"},
		"one came back at the end of the line": {"accept a", "accept b", "cancel a cancelled", "retry a queued", "begin b"},
		"one was accepted twice":               {"accept a", "accept a"},
	} {
		require.False(t, porcupine.CheckOperations(fifo, said(bad...)), why)
	}
}

// requireFIFO checks the history, each session within a bounded time, and says which moves fit into no order.
func requireFIFO(t *testing.T, history []porcupine.Operation) {
	t.Helper()
	began := time.Now()
	model := fifo
	model.Partition = nil
	for _, session := range fifo.Partition(history) {
		result, info := porcupine.CheckOperationsVerbose(model, session, 5*time.Second)
		if result == porcupine.Ok {
			continue
		}
		var longest []int
		for _, order := range info.PartialLinearizations()[0] {
			if len(order) > len(longest) {
				longest = order
			}
		}
		slices.Sort(longest)
		var left []string
		for i, op := range session {
			if _, fits := slices.BinarySearch(longest, i); !fits {
				left = append(left, fmt.Sprintf("%v %v [%s, %s]", op.Input, op.Output, time.Duration(op.Call), time.Duration(op.Return)))
			}
		}
		require.Fail(t, "no FIFO", "%d of %d moves fit into an order, these do not:\n%s", len(longest), len(session), strings.Join(left[:min(len(left), 20)], "\n"))
	}
	t.Logf("%d moves checked in %s", len(history), time.Since(began).Round(time.Millisecond))
}
