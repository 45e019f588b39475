package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The explorer of the model in handover_model_test.go: it tries every order of what can happen next.

type happening struct {
	name string
	do   func()
}

func (w *earth) happenings() []happening {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []happening
	for _, p := range []*proc{w.old, w.new} {
		if !p.alive {
			continue
		}
		if p.next != "" {
			all = append(all, happening{p.name + " " + p.next, func() { p.let <- true }})
		}
		if p.next == "opens the store" || p.next == "is prepared" || p.next == "starts the successor" {
			all = append(all, happening{p.name + " fails where it " + p.next, func() { p.let <- false }})
		}
		all = append(all, happening{p.name + " is killed", func() {
			p.change(func() { w.mourned = w.mourned || p == w.inCharge() })
			p.end()
		}})
		if p.m != nil && !w.stop {
			all = append(all, happening{p.name + " is asked to stop", func() {
				p.change(func() { w.stop, p.stopped = true, true })
				p.m.Notify(Request{Event: Stop, Actor: "somebody"})
				if p == w.old && w.old.heir { // it passes the stop on
					w.new.change(func() { w.new.stopped = true })
					w.new.m.Notify(Request{Event: Stop, Actor: "the predecessor"})
				}
			}})
		}
	}
	if w.old.serving() && !w.asked {
		all = append(all, happening{"a restart is asked for", func() {
			w.old.change(func() { w.asked = true })
			w.old.m.Notify(Request{Event: Restart, Actor: "somebody"})
		}})
	}
	if at := w.dueLocked(); !at.IsZero() {
		all = append(all, happening{"time passes", func() { time.Sleep(time.Until(at)) }})
	}
	return all
}

func (w *earth) due() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dueLocked()
}

// dueLocked is when the next deadline of a living process falls due; zero for none.
func (w *earth) dueLocked() (at time.Time) {
	for _, p := range []*proc{w.old, w.new} {
		times := []time.Time{p.until}
		if p.alive && p.m != nil {
			times = append(times, p.m.Snapshot().Deadline)
		}
		for _, d := range times {
			if p.alive && !d.IsZero() && d.After(time.Now()) && d.Before(time.Now().Add(24*time.Hour)) && (at.IsZero() || d.Before(at)) {
				at = d
			}
		}
	}
	return at
}

// stopIsDue reports whether the process in charge was asked to stop.
func (w *earth) stopIsDue() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return (w.old.stopped && !w.old.heir) || (w.new.stopped && (w.old.heir || !w.old.alive))
}

// inCharge is the process that nobody may take back: the old one until it has told the new one to serve.
func (w *earth) inCharge() *proc {
	if w.old.heir || !w.old.alive {
		return w.new
	}
	return w.old
}

func (w *earth) signature() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, p := range []*proc{w.old, w.new} {
		state := State("–")
		intent := IntentNone
		if p.m != nil {
			state, intent = p.m.Snapshot().State, p.m.Snapshot().Intent
		}
		if !p.alive {
			_, _ = fmt.Fprintf(&b, "%s: gone. ", p.name)
			continue
		}
		_, _ = fmt.Fprintf(&b, "%s: %s %s, lock=%t listener=%t store=%t current=%t lanes=%t accepts=%t, about to: %q, said: %v. ",
			p.name, state, intent, p.lock, p.listener, p.store > 0, p.store == w.epoch, p.lanes, p.accepts, p.next, p.said)
	}
	return fmt.Sprintf("%sheir=%t asked=%t mourned=%t stopped=%t,%t deaf=%t", b.String(), w.old.heir, w.asked, w.mourned, w.old.stopped, w.new.stopped, w.new.deaf)
}

// settle lets everybody do what they are about to, and time pass, and returns how many serve in the end.
func (w *earth) settle() (serving int, done bool) {
	for range 60 {
		acted := false
		for _, p := range []*proc{w.old, w.new} {
			if p.isAbout() {
				p.let <- true
				synctest.Wait()
				acted = true
			}
		}
		if acted {
			continue
		}
		at := w.due()
		if at.IsZero() {
			done = true
			break
		}
		time.Sleep(time.Until(at))
		synctest.Wait()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range []*proc{w.old, w.new} {
		if p.serving() {
			serving++
		} else if p.alive {
			done = false
		}
	}
	return serving, done
}

func (p *proc) isAbout() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive && p.next != ""
}

// promises, each by its name.
var promises = []struct {
	name string
	kept func(w *earth) bool
}{
	{PromiseLanes, func(w *earth) bool { return !w.old.lanes || !w.new.lanes }},
	{PromiseStore, func(w *earth) bool { return w.old.store == 0 || w.new.store == 0 }},
	{PromiseFence, func(w *earth) bool {
		for _, p := range []*proc{w.old, w.new} {
			if p.lanes && p.store != w.epoch {
				return false
			}
		}
		return true
	}},
	{PromiseAccept, func(w *earth) bool {
		for _, p := range []*proc{w.old, w.new} {
			if (p.accepts || p.lanes) && p != w.inCharge() {
				return false
			}
		}
		return true
	}},
	{PromiseListener, func(w *earth) bool {
		for _, p := range []*proc{w.old, w.new} {
			if p.alive && p.m != nil && !slices.Contains([]State{Stopped}, p.m.Snapshot().State) {
				return w.old.listener || w.new.listener
			}
		}
		return true
	}},
	{PromiseLock, func(w *earth) bool {
		for _, p := range []*proc{w.old, w.new} {
			if (p.store > 0 || p.listener) && !p.lock {
				return false
			}
		}
		return true
	}},
}

// broken names the first promise that does not hold.
func (w *earth) broken() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range promises {
		if !p.kept(w) {
			return p.name
		}
	}
	return ""
}

// bury ends everything, so that the bubble can be left.
func (w *earth) bury() {
	w.old.end()
	w.new.end()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range []*proc{w.old, w.new} {
		if p.m != nil {
			<-p.exit
		}
	}
}

func exploreHandover(t *testing.T, fault string) (situations, steps int, ends map[int]int, violation string) {
	seen, ends := make(map[string]bool), make(map[int]int)
	frontier := [][]string{{}}
	for depth := 0; depth <= 40 && len(frontier) > 0; depth++ {
		var next [][]string
		for _, path := range frontier {
			synctest.Test(t, func(t *testing.T) {
				w := newEarth(t, fault)
				defer w.bury()
				story := strings.Join(path, "; ")
				for _, name := range path {
					all := w.happenings()
					i := slices.IndexFunc(all, func(h happening) bool { return h.name == name })
					if i < 0 {
						violation = fmt.Sprintf("the same story ends in two ways: %s, at %q in %s", story, name, w.signature())
						return
					}
					all[i].do()
					synctest.Wait()
					steps++
				}
				if promise := w.broken(); promise != "" {
					violation = fmt.Sprintf("%q is broken in %s after: %s", promise, w.signature(), story)
					return
				}
				sig := w.signature()
				if seen[sig] {
					return
				}
				seen[sig] = true
				for _, h := range w.happenings() {
					next = append(next, append(slices.Clone(path), h.name))
				}
				serving, done := w.settle()
				ends[serving]++
				switch {
				case !done:
					violation = fmt.Sprintf("%q: not settled from %s after: %s", PromiseEnd, sig, story)
				case serving > 1, w.stopIsDue() && serving > 0, !w.stopIsDue() && !w.mourned && serving == 0:
					violation = fmt.Sprintf("%q: %d serve in the end, from %s after: %s", PromiseEnd, serving, sig, story)
				}
			})
			if violation != "" {
				return len(seen), steps, ends, violation
			}
		}
		frontier = next
	}
	if len(frontier) > 0 {
		violation = "not finished within the depth"
	}
	return len(seen), steps, ends, violation
}

func TestAHandOverBetweenTwoProcessesKeepsItsPromises(t *testing.T) {
	situations, steps, ends, violation := exploreHandover(t, "")
	require.Empty(t, violation)
	names := []string{PromiseEnd}
	for _, p := range promises {
		names = append(names, p.name)
	}
	require.ElementsMatch(t, Promises, names, "every promise that is made is checked")
	t.Logf("%d situations of two processes, %d steps; %d promises kept in each; in the end %v serve", situations, steps, len(Promises), ends)
	require.Greater(t, situations, 50)
}

func TestABrokenHandOverBreaksAPromise(t *testing.T) {
	for fault, promise := range map[string]string{
		faultBeside: PromiseEnd, faultHasty: PromiseAccept, faultListener: PromiseListener, faultLock: PromiseLock,
		faultEarly: PromiseStore, faultDeaf: PromiseEnd,
	} {
		_, _, _, violation := exploreHandover(t, fault)
		require.Contains(t, violation, promise, fault)
	}
}
