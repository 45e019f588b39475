package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/statedir"
)

// newDiskHouse is a house whose state folder is a small disk of its own.
func newDiskHouse(t *testing.T, config string) *house {
	t.Helper()
	h := newHouse(t, config)
	require.NoError(t, os.MkdirAll(h.state(), 0o700))
	if err := syscall.Mount("tmpfs", h.state(), "tmpfs", 0, "size=8m,mode=0700"); err != nil {
		t.Skipf("no disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-h.groups[len(h.groups)-1], syscall.SIGKILL)
		_ = syscall.Unmount(h.state(), syscall.MNT_DETACH)
	})
	return h
}

// fill leaves no room on the disk.
func (h *house) fill(name string) {
	h.t.Helper()
	f, err := os.Create(filepath.Join(h.state(), name))
	require.NoError(h.t, err)
	for size := 1 << 20; size > 0; size /= 2 {
		for err = error(nil); err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		require.ErrorIs(h.t, err, syscall.ENOSPC)
	}
	require.NoError(h.t, f.Close())
}

func TestAFullDiskRefusesAndForgetsNothing(t *testing.T) {
	h := newDiskHouse(t, "agents: { slow: { type: command, command: [sh, -c, \"sleep 0.3; cat\"] } }")
	h.start()
	s := h.waitState("Running")
	var record history
	try := func(i int, background bool) error {
		text := fmt.Sprintf("%d %s", i, strings.Repeat("x", 20_000))
		a, _, err := ask(t.Context(), http.DefaultClient, s.Address, "desk", "echo", text, fmt.Sprint(i), background)
		if err == nil {
			record.acknowledged(a.ID, "desk", text)
		}
		return err
	}
	for i := range 5 {
		require.NoError(t, try(i, false))
	}
	running, _, err := ask(t.Context(), http.DefaultClient, s.Address, "other", "slow", "in the middle", "middle", true)
	require.NoError(t, err)
	record.acknowledged(running.ID, "other", "in the middle")
	h.fill("filler")
	var refused error
	for i := 5; i < 500 && refused == nil; i++ {
		refused = try(i, true)
	}
	require.ErrorContains(t, refused, "no room", "what cannot be written down is not accepted")
	require.ErrorContains(t, refused, "Try:")
	// Reads continue. A restart is called off, because the successor could not open the store.
	require.Equal(t, http.StatusOK, h.probe(s.Address, "/readyz"))
	require.NotEmpty(t, h.turn(running.ID).ID)
	_, stderr, code := h.gateway("restart")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "called off")
	require.Contains(t, stderr, "no space left on device")
	require.Equal(t, s.BootID, h.waitState("Running").BootID)
	// And it recovers by itself.
	require.NoError(t, os.Remove(filepath.Join(h.state(), "filler")))
	h.eventually("it accepts again", func() bool { return try(1000, false) == nil })
	h.judge(&record)
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
}

// A page of the store that the disk has torn is noticed, and nothing is written over it.
func TestADamagedStoreIsNotTouched(t *testing.T) {
	h := newHouse(t, "")
	h.start()
	for i := range 50 {
		_, _, err := ask(t.Context(), http.DefaultClient, h.waitState("Running").Address, "s", "echo", strings.Repeat("y", 5000), fmt.Sprint(i), false)
		require.NoError(t, err)
	}
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	store := filepath.Join(h.state(), statedir.StoreFile)
	f, err := os.OpenFile(store, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(strings.Repeat("torn", 1024)), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	torn, err := os.ReadFile(store)
	require.NoError(t, err)
	h.launch()
	require.Equal(t, 1, h.wait())
	require.Contains(t, h.logged(), "damaged or not a database")
	require.Contains(t, h.logged(), "restore a backup")
	after, err := os.ReadFile(store)
	require.NoError(t, err)
	require.Equal(t, torn, after)
}
