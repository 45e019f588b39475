package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/fsm/explore"
	"gateway/internal/config"
	"gateway/internal/statedir"
)

// exploration is how worlds are made.
type exploration struct {
	loaded config.Loaded
	source config.Source
	wishes []time.Duration                                        // what a restart may ask the drain to wait
	plant  func(d *Daemon, effects map[fsm.Effect]fsm.EffectFunc) // a fault; nil for none
}

// explored is an exploration of gateways that restart by the mode.
func explored(t *testing.T, mode string) *exploration {
	t.Helper()
	source := sourceIn(t, t.TempDir(), "lifecycle: { respawn: "+mode+" }\n")
	loaded, err := config.Load(source)
	require.NoError(t, err)
	loaded.Config.Log.Level = "disabled"
	require.NoError(t, os.MkdirAll(loaded.Config.StateDir, 0o700))
	return &exploration{loaded: loaded, source: source}
}

// begin starts a gateway in a new world.
func (x *exploration) begin(t *testing.T) *world {
	t.Helper()
	w := &world{over: make(chan struct{}), exited: make(chan struct{}), wishes: x.wishes}
	x.start(t, w, w.system())
	return w
}

// start starts the gateway of the world on a system.
func (x *exploration) start(t *testing.T, w *world, system system) {
	t.Helper()
	_ = os.Remove(filepath.Join(x.loaded.Config.StateDir, statedir.StartsFile))
	d, err := wire(Options{Source: x.source, Argv: os.Args, Version: "test", Out: io.Discard, Err: io.Discard}, x.loaded, Arrival{}, system)
	require.NoError(t, err)
	w.Daemon = d
	effects := d.effects()
	if x.plant != nil {
		x.plant(d, effects)
	}
	require.NoError(t, d.drive(effects))
	go func() {
		defer close(w.exited)
		_, _ = d.Run(context.Background())
	}()
}

// lastEffect is longer than the last effect takes.
const lastEffect = 7 * time.Second

func (w *world) snapshot() fsm.Snapshot { return w.machine.Snapshot() }

// Actions implements [explore.World].
func (w *world) Actions() (all []explore.Action) {
	add := func(name string, do func()) { all = append(all, explore.Action{Name: name, Do: do}) }
	th, asked := w.look()
	if th.replaced {
		return nil
	}
	for _, q := range asked {
		for _, a := range q.answers {
			add(q.name+": "+a, func() { q.reply <- a })
		}
	}
	if w.held() || w.snapshot().State == fsm.Stopped {
		return all
	}
	for _, ev := range []fsm.Event{fsm.Stop, fsm.Restart, fsm.Resume} {
		add("ask "+string(ev), func() { w.request(fsm.Request{Event: ev}) })
	}
	for _, drain := range w.wishes {
		add(fmt.Sprintf("ask restart, and to wait %s", drain), func() { w.request(fsm.Request{Event: fsm.Restart, Drain: &drain}) })
	}
	if at := w.snapshot().Deadline; !at.IsZero() {
		add("the deadline", func() { w.sleepUntil(at) })
	}
	if th.listens {
		add("the listener fails", func() {
			w.change(func(th *things) {
				th.listens = false
				close(w.fails)
			})
		})
	}
	return all
}

// sleepUntil lets time pass, which is virtual. After a deadline the last effect may still wait for the one before it.
func (w *world) sleepUntil(at time.Time) {
	if left := time.Until(at); left > 0 {
		time.Sleep(left)
	} else {
		time.Sleep(lastEffect)
	}
}

func (w *world) request(r fsm.Request) {
	r.Actor = "explorer"
	dec, err := w.machine.Request(context.Background(), r)
	switch {
	case err != nil:
	case r.Event == fsm.Stop && dec.Outcome == fsm.VerdictAccepted:
		w.stopAsked = true
	case r.Drain != nil && dec.State == fsm.Draining || dec.Outcome == fsm.VerdictPostponed:
		w.wish = r.Drain
	case r.Event == fsm.Restart && dec.Outcome == fsm.VerdictAccepted:
		w.wish = nil
	}
}

// Signature implements [explore.World].
func (w *world) Signature() string {
	s := w.snapshot()
	th, asked := w.look()
	var names []string
	for _, q := range asked {
		names = append(names, q.name)
	}
	slices.Sort(names)
	left, wish := "never", "none"
	if w.wish != nil && (s.State == fsm.Draining || len(s.Postponed) > 0) {
		wish = w.wish.String()
	}
	if !s.Deadline.IsZero() {
		left = time.Until(s.Deadline).String()
	}
	return fmt.Sprintf("%s intent=%s exit=%d ready=%t deadline=%s asked=[%s] postponed=%v wish=%s role=%q generation=%d stop=%t %+v",
		s.State, s.Intent, s.Exit, s.Ready, left, strings.Join(names, ", "), s.Postponed, wish, w.handover.current(), min(s.Generation, 2), w.stopAsked, th)
}

// Broken implements [explore.World].
func (w *world) Broken() string {
	th, asked := w.look()
	s := w.snapshot()
	return fsm.Situation{
		Snapshot: s, Hops: w.machine.Hops(0), Stopping: w.stopAsked, Busy: len(asked) > 0,
		Late: s.State == fsm.Stopped && w.folder.opening != nil && len(asked) > 0, // whoever waits for the store releases the lock
		Lock: th.locks > 0, Open: th.stores > 0 || th.listeners > 0, Twice: th.twice, Lanes: th.starts > 0, Successors: th.successors,
		Serving: th.published && th.stores > 0 && (th.listens || s.State != fsm.Running), // a restart repairs the listener
	}.Broken()
}

// Alone implements [explore.World]: each state is left by its deadline at the latest, until Running or Stopped.
func (w *world) Alone() (broken, how string) {
	for range 2 * len(fsm.Lifecycle().States) {
		s := w.snapshot()
		if th, _ := w.look(); s.State == fsm.Stopped || s.State == fsm.Running || th.replaced || w.held() {
			return "", ""
		}
		w.sleepUntil(s.Deadline)
		synctest.Wait()
		if broken := w.Broken(); broken != "" {
			return broken, w.Signature()
		}
		if w.snapshot().Hop == s.Hop && !w.held() {
			w.sleepUntil(s.Deadline) // the last effect is under way
			synctest.Wait()
			if w.snapshot().Hop == s.Hop {
				return fsm.InvariantEnd, fmt.Sprintf("%s outlives its deadline", s.State)
			}
		}
	}
	return fsm.InvariantEnd, fmt.Sprintf("it is %s at last", w.snapshot().State)
}

// held reports whether the machine itself waits for an answer, which takes no time.
func (w *world) held() bool {
	_, asked := w.look()
	return slices.ContainsFunc(asked, func(q *question) bool { return q.owner })
}

// End implements [explore.World].
func (w *world) End() {
	close(w.over)
	w.machine.Notify(fsm.Request{Event: fsm.Stop, Actor: "explorer", Reason: errors.New("the exploration is over").Error()})
	<-w.exited
}

func TestEveryInterleavingOfTheRealEffectsKeepsTheInvariants(t *testing.T) {
	modes, wishes := []string{"spawn", "in-process", "exec", "supervisor"}, []time.Duration{0, time.Hour}
	if testing.Short() {
		modes, wishes = modes[:1], nil // the mode in which most can go wrong
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			x := explored(t, mode)
			x.wishes = wishes
			r := explore.Run(t, x.begin, 60)
			t.Log(r)
			require.Empty(t, r.Broken, r.String())
			require.Greater(t, r.Situations, 50)
		})
	}
}
