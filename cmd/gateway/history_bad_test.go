package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// goodHistory is a session of three turns: one that was completed, one that a crash interrupted, and one that was
// cancelled and given another try.
func goodHistory() (*history, account) {
	clock := time.Unix(1_000_000, 0)
	log := func(types ...string) (events []event) {
		for i, typ := range types {
			clock = clock.Add(time.Second)
			events = append(events, event{Seq: int64(i + 1), Type: typ, At: clock})
			if typ == "delta" {
				events[i].Text = "text"
			}
		}
		return events
	}
	var record history
	a := account{sessions: map[string][]turnJSON{}, logs: map[string][]event{
		"t0": log("started", "delta", "completed"),
		"t1": log("started", "delta", "interrupted", "started", "delta", "completed"),
		"t2": log("cancelled", "requeued", "started", "delta", "completed"),
	}, witness: map[string][]string{"s": {
		"begin t0 1 0", "end t0 1 0", "begin t1 1 1", "begin t1 2 1", "end t1 2 1", "begin t2 1 2", "end t2 1 2",
	}}}
	for i, runs := range []int{1, 2, 1} {
		id := fmt.Sprint("t", i)
		record.acknowledged(id, "s", "text")
		a.sessions["s"] = append(a.sessions["s"], turnJSON{
			ID: id, Session: "s", Status: "completed", Key: fmt.Sprint(i), Output: "text", Runs: runs, LastEvent: int64(len(a.logs[id])),
		})
	}
	record.streamed("t0", a.logs["t0"][0])
	return &record, a
}

func TestAGoodHistoryIsCalledGood(t *testing.T) {
	record, a := goodHistory()
	v := record.judge(a)
	v.requireClean(t)
	require.Equal(t, 3, v.acknowledged)
}

// A checker that cannot fail checks nothing: each history here breaks the promise in one way.
func TestABadHistoryIsCalledWhatItIs(t *testing.T) {
	lost := func(v verdict) []string { return v.lost }
	twice := func(v verdict) []string { return v.twice }
	disordered := func(v verdict) []string { return v.disordered }
	stuck := func(v verdict) []string { return v.stuck }
	incomplete := func(v verdict) []string { return v.incomplete }
	for _, bad := range []struct {
		name  string
		kind  func(verdict) []string
		spoil func(*history, account)
	}{
		{"a turn has gone", lost, func(_ *history, a account) { a.sessions["s"] = a.sessions["s"][:2] }},
		{"a turn has failed", lost, func(_ *history, a account) { a.sessions["s"][1].Status = "failed" }},
		{"an answer is another", lost, func(_ *history, a account) { a.sessions["s"][1].Output = "other" }},
		{"a cancelled turn was completed", lost, func(h *history, _ account) { h.ends("t0", "cancelled") }},
		{"an agent ran what was never written down", lost, func(_ *history, a account) {
			a.witness["s"] = append(a.witness["s"], "begin t9 1 9")
		}},
		{"a run that no agent ended is completed", lost, func(_ *history, a account) { a.sessions["s"][1].Runs = 3 }},
		{"a turn was completed twice", twice, func(_ *history, a account) {
			a.logs["t0"] = append(a.logs["t0"], event{Seq: 4, Type: "completed"})
			a.sessions["s"][0].LastEvent = 4
		}},
		{"a completed turn was started again", twice, func(_ *history, a account) {
			a.logs["t0"] = append(a.logs["t0"], event{Seq: 4, Type: "started"})
		}},
		{"a request has two turns", twice, func(_ *history, a account) { a.sessions["s"][1].Key = "0" }},
		{"the order of acceptance is another", disordered, func(_ *history, a account) {
			s := a.sessions["s"]
			s[0], s[1] = s[1], s[0]
		}},
		{"two turns ran at once", disordered, func(_ *history, a account) {
			a.logs["t1"][0].At = a.logs["t0"][1].At
		}},
		{"an agent began again after a later one", disordered, func(_ *history, a account) {
			a.witness["s"] = append(a.witness["s"], "begin t0 2 0")
		}},
		{"a turn still waits", stuck, func(_ *history, a account) { a.sessions["s"][2].Status = "queued" }},
		{"an event is missing", incomplete, func(_ *history, a account) {
			a.logs["t1"] = append(a.logs["t1"][:2:2], a.logs["t1"][3:]...)
		}},
		{"the last event is missing", incomplete, func(_ *history, a account) { a.logs["t1"] = a.logs["t1"][:5] }},
		{"a stream jumped", incomplete, func(h *history, a account) { h.streamed("t0", a.logs["t0"][2]) }},
		{"a stream sent an event twice", incomplete, func(h *history, a account) { h.streamed("t0", a.logs["t0"][0]) }},
	} {
		t.Run(bad.name, func(t *testing.T) {
			record, a := goodHistory()
			bad.spoil(record, a)
			v := record.judge(a)
			require.NotEmpty(t, bad.kind(v), "%+v", v)
		})
	}
}
