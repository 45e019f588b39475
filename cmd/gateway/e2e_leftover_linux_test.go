package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
)

// A turn that is tried again after a crash must not act beside what its first attempt has left running.
func TestWhatProgramsOfACrashedGatewayLeftRunningIsEnded(t *testing.T) {
	h := newHouse(t, "")
	pids := filepath.Join(h.dir, "pids")
	h.configure(`
agents:
  parent: { type: command, command: [sh, -c, "echo $$ >> ` + pids + `; sleep 600 & echo $! >> ` + pids + `; setsid sleep 600 & echo $! >> ` + pids + `; wait"] }
`)
	h.start()
	s := h.waitState("Running")
	_, _, err := ask(t.Context(), http.DefaultClient, s.Address, "desk", "parent", "x", "x", true)
	require.NoError(t, err)
	written := func() (all []int) {
		text, _ := os.ReadFile(pids)
		for line := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(line)
			require.NoError(t, err)
			all = append(all, pid)
		}
		return all
	}
	h.eventually("the turn runs", func() bool { return len(written()) == 3 })
	first := written()
	t.Cleanup(func() {
		for _, pid := range written() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	require.NoError(t, h.cmd.Process.Kill())
	h.wait()
	require.True(t, lives(first[1]), "it is nobody's business until the next start")
	h.start()
	h.eventually("the turn runs again", func() bool { return len(written()) == 6 })
	h.eventually("what the first attempt left has ended", func() bool { return !lives(first[0]) && !lives(first[1]) })
	require.True(t, lives(first[2]), "a session of its own was meant to stay")
	require.True(t, lives(written()[4]), "the second attempt's own")
	require.Contains(t, h.logged(), "ended programs that the last gateway left running")
}

// lives reports whether a process runs; a zombie does not.
func lives(pid int) bool {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return false
	}
	stat, err := p.Stat()
	return err == nil && stat.State != "Z"
}
