// Package explore runs every interleaving of what can happen to a world that a test makes, until no new situation
// appears. It knows nothing of what it explores: the model of the lifecycle in fsm's tests and the daemon with its real
// effects are explored by the same rules.
//
// The invariant: the same steps lead to the same situation. So a world is made anew for each path, in a bubble of virtual
// time, and what happens next is chosen by name.
package explore

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// World is one run of what is explored. Its methods are called while everything in it waits.
type World interface {
	// Actions lists everything that can happen next, each under a name of its own.
	Actions() []Action
	// Signature tells one situation from another.
	Signature() string
	// Broken is the name of an invariant that does not hold in the situation; empty when all hold.
	Broken() string
	// Alone lets time pass while nobody reports anything. It returns the name of the invariant that is broken where that
	// leads, and how; empty when none is.
	Alone() (broken, how string)
	// End ends everything in the world, wherever it is.
	End()
}

// Action is one thing that can happen next.
type Action struct {
	Name string
	Do   func()
}

// Result is what an exploration has seen. Broken is the name of the first invariant that did not hold; it is empty when
// all held in every situation.
type Result struct {
	Situations int
	// Steps counts the actions of all paths that were walked.
	Steps  int
	Broken string
	// Where is the situation in which it was broken, and After the path that led there.
	Where string
	After []string
}

// String is the result in one line.
func (r Result) String() string {
	seen := fmt.Sprintf("%d situations, %d steps", r.Situations, r.Steps)
	if r.Broken == "" {
		return seen
	}
	return fmt.Sprintf("%s; %q is broken in %s after: %s", seen, r.Broken, r.Where, strings.Join(r.After, ", "))
}

// Run explores the worlds that begin makes, shortest paths first, at most so many steps deep. A world that is still
// growing there fails the test.
func Run[W World](t *testing.T, begin func(t *testing.T) W, depth int) (r Result) {
	t.Helper()
	seen := make(map[string]bool)
	frontier := [][]string{nil}
	for len(frontier) > 0 {
		if depth < 0 {
			t.Fatalf("the exploration has not ended within its depth: %s", r)
		}
		depth--
		var next [][]string
		for _, path := range frontier {
			synctest.Test(t, func(t *testing.T) {
				w := begin(t)
				defer w.End()
				synctest.Wait()
				walk(t, w, path)
				r.Steps += len(path)
				where := w.Signature()
				if r.Broken = w.Broken(); r.Broken != "" {
					r.Where, r.After = where, path
					return
				}
				if seen[where] {
					return
				}
				seen[where] = true
				for _, a := range w.Actions() {
					next = append(next, append(slices.Clone(path), a.Name))
				}
				var how string
				if r.Broken, how = w.Alone(); r.Broken != "" {
					r.Where, r.After = where+", left alone: "+how, path
				}
			})
			r.Situations = len(seen)
			if r.Broken != "" {
				return r
			}
		}
		frontier = next
	}
	return r
}

// walk takes the steps of a path.
func walk(t *testing.T, w World, path []string) {
	t.Helper()
	for i, name := range path {
		all := w.Actions()
		at := slices.IndexFunc(all, func(a Action) bool { return a.Name == name })
		if at < 0 {
			t.Fatalf("the same steps did not lead to the same situation: no %q after %q in %s", name, path[:i], w.Signature())
		}
		all[at].Do()
		synctest.Wait()
	}
}
