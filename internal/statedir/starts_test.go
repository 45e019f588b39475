package statedir

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRepeatedFailingStartsWaitLongerAndHealByThemselves(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	require.Zero(t, ReadFailedStarts(dir))
	f := ReadFailedStarts(dir).Before("a", now)
	var holds []time.Duration
	for range 10 {
		holds = append(holds, f.Hold())
		f.Count, f.Last, f.Reason = f.Count+1, now, "damaged"
		require.NoError(t, f.Write(dir))
		f = ReadFailedStarts(dir).Before("a", now)
	}
	s := time.Second
	require.Equal(t, []time.Duration{0, 0, 0, s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s}, holds)
	require.Equal(t, "damaged", f.Reason)
	require.Zero(t, f.Before("b", now).Hold(), "another configuration or executable")
	require.Zero(t, f.Before("a", now.Add(2*time.Hour)).Hold(), "long ago")
	require.Zero(t, f.Before("a", now.Add(-time.Minute)).Hold(), "the clock was set back")
	require.Equal(t, longestHold, FailedStarts{Count: 1 << 40}.Hold())
	require.NoError(t, FailedStarts{}.Write(dir))
	require.NoFileExists(t, filepath.Join(dir, StartsFile))
	require.NoError(t, os.WriteFile(filepath.Join(dir, StartsFile), []byte("{"), 0o600))
	require.Zero(t, ReadFailedStarts(dir))
	require.Error(t, FailedStarts{Count: 1}.Write(filepath.Join(dir, "gone")))
}
