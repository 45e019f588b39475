package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"gateway/fsm"
	"gateway/internal/statedir"
)

// holdOff makes a fresh process wait when the starts before it have failed, one after another, with the same
// configuration and executable. The wait is part of Starting: a stop ends it.
func (d *Daemon) holdOff(ctx context.Context, e fsm.Entry) error {
	if d.handover.restarted(e.Hop.Generation) {
		return nil
	}
	dir, now := d.config().StateDir, time.Now()
	f := statedir.ReadFailedStarts(dir).Before(d.fingerprint(), now)
	if err := d.tenure.keep(func() { d.folder.before = f }, nil); err != nil {
		return err
	}
	if f.Count > 0 {
		hold := min(f.Hold(), holdsOff.of(time.Until(e.Deadline())))
		d.log.Warn().Int("failed", f.Count).Time("last", f.Last).Str("reason", f.Reason).Dur("wait_ms", hold).
			Msg("the last starts have failed")
		d.outside.supervisor.Notify(fmt.Sprintf("STATUS=%s: %d starts have failed; the last one: %s", fsm.Starting, f.Count, statusLine(f.Reason)))
		if hold > 0 {
			waits := f
			waits.Until = now.Add(hold)
			d.count(waits)
			held := time.NewTimer(hold)
			defer held.Stop()
			select {
			case <-held.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	f.Count, f.Last, f.Reason = f.Count+1, time.Now(), "it ended before it was Running, and said nothing"
	d.count(f)
	return nil
}

// startEnded writes down how this start has ended.
func (d *Daemon) startEnded(h fsm.Hop) {
	switch {
	case d.handover.current() != owner: // the folder is another gateway's
	case h.Event == fsm.StartFailed:
		f := statedir.ReadFailedStarts(d.config().StateDir).Before(d.fingerprint(), time.Now())
		if d.handover.restarted(h.Generation) {
			f.Count++
		}
		f.Count, f.Last, f.Reason = max(f.Count, 1), time.Now(), h.Reason
		d.count(f)
	case h.To == fsm.Running:
		d.count(statedir.FailedStarts{})
	case h.From == fsm.Starting: // it was called off: that says nothing about it
		d.count(d.folder.before)
	}
}

func (d *Daemon) count(f statedir.FailedStarts) {
	if err := f.Write(d.config().StateDir); err != nil {
		d.log.Debug().Err(err).Msg("failed starts are not counted")
	}
}

// fingerprint tells one configuration and executable from another, without what is secret in them.
func (d *Daemon) fingerprint() string {
	about := struct {
		Config     any
		Executable string
		Size       int64
		Modified   time.Time
	}{Config: d.config().Redacted(), Executable: d.executable}
	if st, err := os.Stat(d.executable); err == nil {
		about.Size, about.Modified = st.Size(), st.ModTime()
	}
	b, err := json.Marshal(about)
	if err != nil { // only plain fields; kept so that a change cannot fail in silence
		d.log.Error().Err(err).Msg("fingerprint")
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
