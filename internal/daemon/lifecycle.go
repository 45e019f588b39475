package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"gateway/fsm"
	"gateway/server"
)

// lifecycle is the machine as the server sees it.
type lifecycle struct{ d *Daemon }

func (l lifecycle) Admission() (server.Admission, <-chan struct{}) {
	changed := l.d.machine.Changed()
	return server.Admission(l.d.machine.Snapshot().Admission), changed
}

func (l lifecycle) Status() server.Status {
	s, d := l.d.machine.Snapshot(), l.d
	doc := server.StatusDocument{
		State: s.State, Since: s.Since, PID: os.Getpid(), BootID: s.BootID, Generation: s.Generation,
		Address: d.listeningOn(), TLS: d.config().TLS.On(), StateDir: d.config().StateDir, Version: d.Version,
		RespawnMode: string(d.current.Load().mode), RespawnReason: d.current.Load().why,
		Intent: s.Intent, Deadline: s.Deadline, Admission: s.Admission, Postponed: s.Postponed, Hop: s.Hop, Counters: s.Counters,
	}
	if q := d.current.Load().lanes; q != nil {
		st := q.Stats()
		doc.Turns = server.TurnCounts{Running: st.Running, Queued: st.Queued, Stuck: st.Stuck}
	}
	b, err := json.Marshal(doc)
	if err != nil { // only plain fields; kept so that a change cannot fail in silence
		d.log.Error().Err(err).Msg("status")
	}
	return server.Status{State: string(s.State), BootID: s.BootID, Generation: s.Generation, Document: b}
}

func (l lifecycle) Hops(after uint64) ([]server.Hop, <-chan struct{}) {
	changed := l.d.machine.Changed()
	var out []server.Hop
	for _, h := range l.d.machine.Hops(after) {
		b, err := json.Marshal(h)
		if err != nil {
			continue
		}
		out = append(out, server.Hop{Seq: h.Seq, Document: b})
	}
	return out, changed
}

func (l lifecycle) Request(ctx context.Context, r server.Request) (server.Decision, error) {
	dec, err := l.d.machine.Request(ctx, fsm.Request{Event: fsm.Event(r.Event), Actor: r.Actor, Reason: r.Reason, Turn: r.Turn, Drain: r.Drain})
	if err != nil {
		return server.Decision{}, err
	}
	if r.Drain != nil && dec.Outcome == "coalesced" && dec.State == fsm.Draining {
		l.d.hurryUp(*r.Drain)
		dec.Message += fmt.Sprintf("; it waits for turns at most %s more", *r.Drain)
	}
	return server.Decision{Outcome: dec.Outcome, State: string(dec.State), Message: dec.Message, Hop: dec.Hop}, nil
}

func (l lifecycle) AuthorizeSignal(actor string) {
	l.d.outside.permit.Grant(actor)
	l.d.log.Info().Str("actor", actor).Msg("one restart by SIGUSR1 is authorised for 5 s")
}

func (l lifecycle) States(format string) (string, error) { return fsm.Lifecycle().Render(format) }
