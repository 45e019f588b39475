package main

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/queue"
)

func TestThePageIsInStepWithTheTable(t *testing.T) {
	want, err := page()
	require.NoError(t, err)
	got, err := os.ReadFile("../../docs/turns.md")
	require.NoError(t, err)
	require.True(t, want == string(got), "docs/turns.md is behind the table. Try: make generate")
}

func TestThePageNeedsTheDefaultOfEachSetting(t *testing.T) {
	_, err := queue.Page(nil)
	require.ErrorContains(t, err, "lifecycle.drain_timeout")
}

func TestDurationsAreShort(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"30s": 30 * time.Second, "2.5s": 2500 * time.Millisecond, "30m": 30 * time.Minute, "1m30s": 90 * time.Second,
		"168h": 168 * time.Hour, "1h30m": 90 * time.Minute,
	} {
		require.Equal(t, want, short(d))
	}
}
