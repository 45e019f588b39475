package daemon

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/fsm/explore"
)

// unstopped waits for the turns that run and starts others meanwhile.
type unstopped struct{ *fakeLanes }

func (l unstopped) Drain(ctx context.Context, _ string) error { return l.wait(ctx) }

// Each fault is planted in a real effect, and the exploration finds it by the invariant that it breaks.
func TestTheExplorationFindsEachFaultInARealEffect(t *testing.T) {
	// before does something to the daemon before the real effect.
	before := func(name fsm.Effect, do func(*Daemon)) func(*Daemon, map[fsm.Effect]fsm.EffectFunc) {
		return func(d *Daemon, effects map[fsm.Effect]fsm.EffectFunc) {
			sound := effects[name]
			effects[name] = func(ctx context.Context, e fsm.Entry) fsm.Outcome {
				do(d)
				return sound(ctx, e)
			}
		}
	}
	for _, c := range []struct {
		fault     string
		invariant string
		mode      string
		plant     func(*Daemon, map[fsm.Effect]fsm.EffectFunc)
	}{
		{
			"a release that does not wait", fsm.InvariantRelease, "in-process",
			func(_ *Daemon, effects map[fsm.Effect]fsm.EffectFunc) {
				sound := effects[fsm.EffectRelease]
				effects[fsm.EffectRelease] = func(ctx context.Context, e fsm.Entry) fsm.Outcome {
					go sound(context.WithoutCancel(ctx), e)
					return fsm.Outcome{}
				}
			},
		},
		{
			"a release that forgets the store that is still being opened", fsm.InvariantLock, "in-process",
			before(fsm.EffectRelease, func(d *Daemon) { d.folder.opening = nil }),
		},
		{
			"lanes not stopped", fsm.InvariantLanes, "spawn",
			before(fsm.EffectDrain, func(d *Daemon) {
				g := *d.current.Load()
				g.lanes = unstopped{g.lanes.(*fakeLanes)}
				d.current.Store(&g)
			}),
		},
		{
			"a lock released early", fsm.InvariantLock, "in-process",
			before(fsm.EffectClose, func(d *Daemon) {
				if d.folder.lock != nil {
					_ = d.folder.lock.Release()
				}
			}),
		},
		{
			"an outcome posted twice", fsm.InvariantPossible, "in-process",
			func(_ *Daemon, effects map[fsm.Effect]fsm.EffectFunc) {
				sound := effects[fsm.EffectDrain]
				effects[fsm.EffectDrain] = func(ctx context.Context, e fsm.Entry) fsm.Outcome {
					if out := sound(ctx, e); out.Event != "" {
						e.Raise(out)
						e.Raise(out)
					}
					return fsm.Outcome{}
				}
			},
		},
		{
			"a successor not ended", fsm.InvariantSuccessor, "spawn",
			before(fsm.EffectResume, func(d *Daemon) { d.handover.next = nil }),
		},
	} {
		t.Run(c.fault, func(t *testing.T) {
			x := explored(t, c.mode)
			x.plant = c.plant
			r := explore.Run(t, x.begin, 60)
			t.Log(r)
			require.Equal(t, c.invariant, r.Broken)
		})
	}
}
