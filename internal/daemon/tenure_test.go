package daemon

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever is opened while the gateway is released has exactly one owner, who closes it.
func TestWhatIsOpenedTooLateIsClosedByWhoeverOpenedIt(t *testing.T) {
	const opened = 100
	var tn tenure
	var kept, closed [opened]bool
	var effects sync.WaitGroup
	for i := range opened {
		effects.Go(func() {
			err := tn.keep(func() { kept[i] = true }, func() { closed[i] = true })
			if closed[i] != (err != nil) {
				panic("it is closed exactly when it was not kept")
			}
		})
	}
	tn.end()
	released := kept // without waiting for the effects
	effects.Wait()
	require.Equal(t, kept, released, "nothing was kept after the end")
	for i := range opened {
		require.NotEqual(t, kept[i], closed[i])
	}
	require.ErrorIs(t, tn.keep(func() { t.Error("kept") }, nil), errTooLate)
}
