package daemon

import (
	"context"
	"encoding/json"
	"os"

	"gateway/fsm"
	"gateway/server"
)

// lifecycle is the machine as the server sees it.
type lifecycle struct{ d *Daemon }

func (l lifecycle) Admission() (fsm.Admission, <-chan struct{}) {
	changed := l.d.machine.Changed()
	return l.d.machine.Snapshot().Admission, changed
}

func (l lifecycle) Snapshot() fsm.Snapshot { return l.d.machine.Snapshot() }

func (l lifecycle) Status() json.RawMessage {
	s, d := l.d.machine.Snapshot(), l.d
	doc := server.StatusDocument{
		State: s.State, Since: s.Since, PID: os.Getpid(), BootID: s.BootID, Generation: s.Generation,
		Address: d.listeningOn(), TLS: d.config().TLS.On(), StateDir: d.config().StateDir, Version: d.Version,
		RespawnMode: d.current.Load().mode, RespawnReason: d.current.Load().why,
		Intent: s.Intent, Ready: s.Ready, Deadline: s.Deadline, Admission: s.Admission, Postponed: s.Postponed, Hop: s.Hop, Counters: s.Counters,
	}
	if q := d.current.Load().lanes; q != nil {
		st := q.Stats()
		doc.Turns = server.TurnCounts{Running: st.Running, Queued: st.Queued, Stuck: st.Stuck}
	}
	b, err := json.Marshal(doc)
	if err != nil { // only plain fields; kept so that a change cannot fail in silence
		d.log.Error().Err(err).Msg("status")
	}
	return b
}

func (l lifecycle) Hops(after uint64) ([]fsm.Hop, <-chan struct{}) {
	changed := l.d.machine.Changed()
	return l.d.machine.Hops(after), changed
}

func (l lifecycle) Request(ctx context.Context, r fsm.Request) (fsm.Decision, error) {
	return l.d.machine.Request(ctx, r)
}

func (l lifecycle) AuthorizeSignal(actor string) {
	l.d.outside.permit.Grant(actor)
	l.d.log.Info().Str("actor", actor).Msg("one restart by SIGUSR1 is authorised for 5 s")
}
