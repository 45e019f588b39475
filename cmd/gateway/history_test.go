package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// history is a record of a gateway's work that is independent of the gateway: the answers to its clients, in order, and
// what the agents themselves wrote down. See judge.
type history struct {
	mu       sync.Mutex
	promises []promise
	at       map[string]int // turn id → place in promises
	// witness is a folder in which agents write down what they do, a file for each session; empty for none. A
	// line is "begin" or "end", the turn's id, the number of the run, and the input.
	witness string
	// timeless is set when the clock was changed, so that times prove nothing.
	timeless bool
}

// promise is one acknowledged turn.
type promise struct {
	id, session, want string
	ends              []string // the statuses that it may end in
	seen              []event  // what a client was streamed of its log
}

type event struct {
	Seq     int64
	Type    string
	Attempt int
	Text    string
	At      time.Time
}

type turnJSON struct {
	ID, Session, Status, Input, Output, Error string
	Key                                       string `json:"idempotency_key"`
	Attempt, Runs                             int
	LastEvent                                 int64      `json:"last_event"`
	CreatedAt                                 time.Time  `json:"created_at"`
	StartedAt                                 *time.Time `json:"started_at"`
	FinishedAt                                *time.Time `json:"finished_at"`
}

// acknowledged records a turn that the gateway acknowledged, and the output that the turn must have in the end.
func (h *history) acknowledged(id, session, want string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, again := h.at[id]; again { // a repeat of the request
		return
	}
	if h.at == nil {
		h.at = make(map[string]int)
	}
	h.at[id] = len(h.promises)
	h.promises = append(h.promises, promise{id: id, session: session, want: want, ends: []string{"completed"}})
}

// ends records the statuses in which the turn may end, after a request to cancel or retry it.
func (h *history) ends(id string, statuses ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.promises[h.at[id]].ends = statuses
}

// streamed notes an event that a client was sent.
func (h *history) streamed(id string, e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &h.promises[h.at[id]]
	p.seen = append(p.seen, e)
}

func (h *history) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.promises)
}

// account is the gateway's own story: the turns of each session in the order of acceptance, their logs, and
// what the agents wrote down.
type account struct {
	sessions map[string][]turnJSON
	logs     map[string][]event
	witness  map[string][]string
}

// verdict lists every breach of the promise, by its kind.
type verdict struct {
	acknowledged                               int
	lost, twice, disordered, stuck, incomplete []string
}

// judge compares what was promised with the gateway's account: 0 lost, 0 completed twice, 0 out of order in
// their session, 0 stuck, and logs without a gap.
func (h *history) judge(a account) (v verdict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v.acknowledged = len(h.promises)
	found := make(map[string]turnJSON)
	for _, session := range a.sessions {
		for _, t := range session {
			found[t.ID] = t
		}
	}
	for _, p := range h.promises {
		t, ok := found[p.id]
		switch {
		case !ok:
			v.lost = append(v.lost, p.id+" is not there")
			continue
		case t.Status == "queued" || t.Status == "running":
			v.stuck = append(v.stuck, p.id+" is still "+t.Status)
		case !slices.Contains(p.ends, t.Status):
			v.lost = append(v.lost, fmt.Sprintf("%s is %s (%s), want %v", p.id, t.Status, t.Error, p.ends))
		case t.Status == "completed" && strings.TrimSpace(t.Output) != p.want:
			v.lost = append(v.lost, fmt.Sprintf("%s answers %q, want %q", p.id, t.Output, p.want))
		case t.Session != p.session:
			v.lost = append(v.lost, p.id+" is in session "+t.Session)
		}
		v.compareStream(p, a.logs[p.id])
	}
	for name, turns := range a.sessions {
		v.judgeLogs(turns, a.logs)
		v.judgeAcceptance(name, turns, h.promises)
		if !h.timeless {
			v.judgeTimes(turns, a.logs)
		}
		if lines, ok := a.witness[name]; ok {
			v.judgeWitness(turns, a.logs, lines)
		}
	}
	return v
}

// compareStream: what a client saw is the beginning of the log, each event once.
func (v *verdict) compareStream(p promise, log []event) {
	for i, e := range p.seen {
		if i >= len(log) || e.Seq != log[i].Seq || e.Type != log[i].Type || e.Text != log[i].Text {
			v.incomplete = append(v.incomplete, fmt.Sprintf("%s: the stream's event %d (%d %s) is not the log's", p.id, i+1, e.Seq, e.Type))
			return
		}
	}
}

// judgeLogs: a log counts without gaps up to the turn's last event, and a completion is its end.
func (v *verdict) judgeLogs(turns []turnJSON, logs map[string][]event) {
	for _, t := range turns {
		log := logs[t.ID]
		if int64(len(log)) != t.LastEvent {
			v.incomplete = append(v.incomplete, fmt.Sprintf("%s has %d events of %d", t.ID, len(log), t.LastEvent))
		}
		text := ""
		for i, e := range log {
			switch {
			case e.Seq != int64(i+1):
				v.incomplete = append(v.incomplete, fmt.Sprintf("%s: event %d is numbered %d", t.ID, i+1, e.Seq))
			case e.Type == "completed" && i != len(log)-1:
				v.twice = append(v.twice, t.ID+" went on after it was completed")
			case e.Type == "delta":
				text += e.Text
			case e.Type == "started":
				text = ""
			}
		}
		if t.Status == "completed" && text != t.Output {
			v.incomplete = append(v.incomplete, t.ID+": the deltas are not the output")
		}
		if final := len(log) > 0 && isFinal(log[len(log)-1].Type); final != isFinal(t.Status) {
			v.incomplete = append(v.incomplete, fmt.Sprintf("%s is %s, its log has another status", t.ID, t.Status))
		}
	}
}

// judgeAcceptance: the session has what was acknowledged in that order, and nothing in it twice.
func (v *verdict) judgeAcceptance(session string, turns []turnJSON, promises []promise) {
	place, keys := make(map[string]int), make(map[string]bool)
	for i, t := range turns {
		if keys[t.Key] {
			v.twice = append(v.twice, fmt.Sprintf("%s: %q was accepted twice", session, t.Key))
		}
		keys[t.Key] = true
		place[t.ID] = i
	}
	last := -1
	for _, p := range promises {
		if i, ok := place[p.id]; ok && p.session == session {
			if i < last {
				v.disordered = append(v.disordered, p.id+" is before one that was acknowledged earlier")
			}
			last = max(last, i)
		}
	}
}

// judgeTimes: no two attempts of a session overlap, and no turn starts before all that were accepted earlier
// have ended for the first time.
func (v *verdict) judgeTimes(turns []turnJSON, logs map[string][]event) {
	type attempt struct {
		id           string
		begin, ended time.Time
	}
	var attempts []attempt
	var earlier time.Time // the latest first end of those before
	for _, t := range turns {
		var begin, end *time.Time
		for _, e := range logs[t.ID] {
			switch {
			case e.Type == "started":
				if begin == nil && e.At.Before(earlier) {
					v.disordered = append(v.disordered, t.ID+" started before those before it had ended")
				}
				begin = &e.At
				attempts = append(attempts, attempt{t.ID, e.At, e.At})
			case e.Type == "interrupted", isFinal(e.Type):
				if begin != nil {
					attempts[len(attempts)-1].ended = e.At
				}
				if end == nil && isFinal(e.Type) {
					end = &e.At
				}
			}
		}
		if end != nil && end.After(earlier) {
			earlier = *end
		}
	}
	slices.SortStableFunc(attempts, func(a, b attempt) int { return a.begin.Compare(b.begin) })
	for i := 1; i < len(attempts); i++ {
		if attempts[i].begin.Before(attempts[i-1].ended) {
			v.disordered = append(v.disordered, fmt.Sprintf("%s ran while %s did", attempts[i].id, attempts[i-1].id))
		}
	}
}

// judgeWitness checks that agents began in the order of acceptance, and that every completed turn ran to its end. A turn
// that was retried by hand may run after later turns. Not every agent need write.
func (v *verdict) judgeWitness(turns []turnJSON, logs map[string][]event, lines []string) {
	place, began, ended := make(map[string]int), make(map[string]bool), make(map[string]bool)
	for i, t := range turns {
		place[t.ID] = i
	}
	last := -1
	for _, line := range lines {
		f := strings.SplitN(line, " ", 4)
		i, known := place[f[1]]
		began[f[1]] = true
		switch {
		case !known:
			v.lost = append(v.lost, f[1]+" was run and is not there")
		case f[0] == "end":
			ended[f[1]+f[2]] = true
		case i < last && !slices.ContainsFunc(logs[f[1]], func(e event) bool { return e.Type == "requeued" }):
			v.disordered = append(v.disordered, f[1]+" began again after a later turn")
		default:
			last = max(last, i)
		}
	}
	for _, t := range turns {
		if t.Status == "completed" && began[t.ID] && !ended[t.ID+strconv.Itoa(t.Runs)] {
			v.lost = append(v.lost, fmt.Sprintf("%s is completed, but no agent has ended its run %d", t.ID, t.Runs))
		}
	}
}

func isFinal(s string) bool { return s == "completed" || s == "failed" || s == "cancelled" }

func (v *verdict) requireClean(t *testing.T) {
	t.Helper()
	require.Empty(t, v.lost, "lost")
	require.Empty(t, v.twice, "twice")
	require.Empty(t, v.disordered, "out of order")
	require.Empty(t, v.stuck, "stuck")
	require.Empty(t, v.incomplete, "events")
}

// account asks the running gateway for its story, and the agents for theirs.
func (h *house) account(witness string) account {
	h.t.Helper()
	a := account{sessions: make(map[string][]turnJSON), logs: make(map[string][]event), witness: make(map[string][]string)}
	var page struct {
		Turns   []turnJSON
		HasMore bool `json:"has_more"`
	}
	for before := ""; before == "" || page.HasMore; before = page.Turns[len(page.Turns)-1].ID {
		page.Turns, page.HasMore = nil, false
		h.get("/v1/turns?limit=1000&before="+url.QueryEscape(before), &page)
		for _, t := range page.Turns { // newest first
			a.sessions[t.Session] = append(a.sessions[t.Session], t)
			a.logs[t.ID] = h.events(t.ID)
		}
		if len(page.Turns) == 0 {
			break
		}
	}
	for name := range a.sessions {
		slices.Reverse(a.sessions[name])
		if witness == "" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(witness, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		require.NoError(h.t, err)
		a.witness[name] = slices.Collect(strings.SplitSeq(strings.TrimSpace(string(b)), "\n"))
	}
	return a
}

// events is the turn's log, as it is on disk now.
func (h *house) events(id string) []event {
	h.t.Helper()
	var log struct{ Events []event }
	h.get("/v1/turns/"+id+"/events", &log)
	return log.Events
}

// judge waits until every turn has ended and checks that the promise was kept.
func (h *house) judge(record *history) {
	h.t.Helper()
	h.eventually("every turn has ended", func() bool {
		s, err := h.status()
		return err == nil && s.State == "Running" && s.Turns.Queued == 0 && s.Turns.Running == 0
	})
	v := record.judge(h.account(record.witness))
	v.requireClean(h.t)
}
