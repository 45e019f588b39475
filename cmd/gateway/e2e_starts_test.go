package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/statedir"
)

func TestFailingStartsBackOffAndSayWhyFirst(t *testing.T) {
	h := newHouse(t, "")
	require.NoError(t, os.MkdirAll(h.state(), 0o700))
	store := filepath.Join(h.state(), statedir.StoreFile)
	require.NoError(t, os.WriteFile(store, []byte("this is a diary, and no database at all"), 0o600))
	for i := range 3 {
		h.launch()
		require.Equal(t, 1, h.wait())
		require.Equal(t, i+1, statedir.ReadFailedStarts(h.state()).Count)
	}
	require.NotContains(t, h.logged(), `"wait_ms":1000`, "the first three may follow each other at once")
	out, _, code := h.gateway("status")
	require.Equal(t, 3, code)
	require.True(t, strings.HasPrefix(out, "the last start failed: queue: the store "), out)
	out, _, _ = h.gateway("status", "--json")
	var doc struct {
		Failed statedir.FailedStarts `json:"failed_starts"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &doc))
	require.Equal(t, 3, doc.Failed.Count)

	h.launch()
	h.eventually("it waits", func() bool { return !statedir.ReadFailedStarts(h.state()).Until.IsZero() })
	require.Contains(t, h.logged(), "the last starts have failed")
	require.Contains(t, h.logged(), "damaged")
	_, stderr, code := h.gateway("run")
	require.Equal(t, 78, code, "the one that waits has the lock: %s", stderr)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait(), "a stop does not wait")
	require.Equal(t, 3, statedir.ReadFailedStarts(h.state()).Count, "and records nothing about the start")

	h.configure("lanes: { main: { concurrency: 3 } }") // another configuration is not held up
	h.launch()
	require.Equal(t, 1, h.wait())
	require.Equal(t, 1, statedir.ReadFailedStarts(h.state()).Count)
	require.NoError(t, os.Remove(store))
	h.start()
	h.eventually("all is forgiven", func() bool { return statedir.ReadFailedStarts(h.state()).Count == 0 })
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

// A start that is killed, for example by the kernel for lack of memory, logs nothing, but counts as failed.
func TestAStartThatWasKilledCountsAsFailed(t *testing.T) {
	h, arm := newHandoverHouse(t, "exec", "start.store=kill")
	arm()
	h.launch()
	h.wait()
	require.Equal(t, 1, statedir.ReadFailedStarts(h.state()).Count)
	out, _, _ := h.gateway("status")
	require.Contains(t, out, "it ended before it was Running")
	h.start()
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}
