package daemon

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/fsm"
)

// The figures of the documentation, with the default durations and with others.
func TestTheTimeOfAStateIsDividedAmongItsSteps(t *testing.T) {
	for _, tt := range []struct {
		name string
		step share
		of   time.Duration
		want time.Duration
	}{
		{"the close, by default", closingEnd, fsm.Defaults()[fsm.ShutdownTimeout], 4800 * time.Millisecond},
		{"the close, with a minute", closingEnd, time.Minute, 59800 * time.Millisecond},
		{"the close, in a hurry", closingEnd, 500 * time.Millisecond, 400 * time.Millisecond},
		{"answers, by default", answersEnd, fsm.Defaults()[fsm.ShutdownTimeout], 3 * time.Second},
		{"answers, with a minute", answersEnd, time.Minute, 58 * time.Second},
		{"answers, in a hurry", answersEnd, time.Second, 600 * time.Millisecond},
		{"carrying, by default", answersCarry, fsm.Defaults()[fsm.RespawnTimeout], time.Second},
		{"carrying, with a minute", answersCarry, time.Minute, time.Second},
		{"carrying, in a hurry", answersCarry, time.Second, 100 * time.Millisecond},
		{"following, by default", answersFollow, fsm.Defaults()[fsm.RespawnTimeout], 50 * time.Millisecond},
		{"holding off, by default", holdsOff, fsm.Defaults()[fsm.StartTimeout], 15 * time.Second},
		{"waiting to serve, by default", awaitsServe, fsm.Defaults()[fsm.StartTimeout], 15 * time.Second},
		{"nothing is left", closingEnd, -time.Second, 0},
		{"all of it", share{}, time.Second, time.Second},
	} {
		require.Equal(t, tt.want, tt.step.of(tt.of), tt.name)
	}
}

func TestAStepEndsWithItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state, leave := context.WithTimeout(t.Context(), 5*time.Second)
		defer leave()
		time.Sleep(time.Second) // virtual; what is left counts
		began := time.Now()
		step, cancel := answersEnd.within(state)
		defer cancel()
		<-step.Done()
		require.Equal(t, 2400*time.Millisecond, time.Since(began))
		require.NoError(t, state.Err())

		endless, cancel := answersEnd.within(t.Context())
		_, bounded := endless.Deadline()
		require.False(t, bounded)
		cancel()
		bound, cancel := answersCarry.within(t.Context())
		defer cancel()
		at, bounded := bound.Deadline()
		require.True(t, bounded)
		require.Equal(t, time.Second, time.Until(at))
	})
}

func TestEveryConditionOfASignalIsDecided(t *testing.T) {
	decided := (&Daemon{}).conditions()
	require.Len(t, decided, len(fsm.Conditions))
	for _, c := range fsm.Conditions {
		require.NotNil(t, decided[c], c)
	}
}
