package queue

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
)

// memoryChild, in the environment, makes a memory benchmark the process that is measured: it names the file that
// the figures go to.
const memoryChild = "QUEUE_MEMORY_CHILD"

// BenchmarkMemory is what a process holds that has a queue open and nothing else, in megabytes: as it stands, and
// with all given back that can be. Each run is a process of its own, for what a run leaves behind would count in
// the next.
func BenchmarkMemory(b *testing.B) {
	states := []struct {
		name  string
		reach func(*testing.B, *Queue)
	}{
		{"idle", func(*testing.B, *Queue) {}},
		{"ran=100000", func(b *testing.B, q *Queue) {
			names := sessionNames(100_000)
			produce(b, 256, len(names), func(n int) error { return completeHello(b.Context(), q, names[n]) })
		}},
		{"queued=100000", func(b *testing.B, q *Queue) {
			pause(q)
			accept100k(b, q)
		}},
	}
	for _, state := range states {
		b.Run(state.name, func(b *testing.B) {
			if path := os.Getenv(memoryChild); path != "" {
				writeMemory(b, path, state.reach)
				return
			}
			for unit, value := range readMemory(b, state.name) {
				b.ReportMetric(value, unit)
			}
			b.ReportMetric(0, "ns/op") // how long it took to get there is not what is measured
		})
	}
}

// readMemory measures one state in a new process.
func readMemory(b *testing.B, state string) (figures map[string]float64) {
	path := filepath.Join(b.TempDir(), "figures")
	child := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkMemory$/^"+state+"$", "-test.benchtime=1x")
	child.Env = append(os.Environ(), memoryChild+"="+path)
	out, err := child.CombinedOutput()
	require.NoError(b, err, "%s", out)
	text, err := os.ReadFile(path)
	require.NoError(b, err, "%s", out)
	require.NoError(b, json.Unmarshal(text, &figures))
	return figures
}

func writeMemory(b *testing.B, path string, reach func(*testing.B, *Queue)) {
	q := openQueue(b, storePath(b), benchConfig(b, echo))
	q.Resume()
	reach(b, q)
	figures := map[string]float64{}
	figures["RSS-MB"], figures["heap-MB"] = heldMemory(b)
	runtime.GC()
	debug.FreeOSMemory()
	figures["freed-RSS-MB"], figures["freed-heap-MB"] = heldMemory(b)
	text, err := json.Marshal(figures)
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(path, text, 0o600))
}

// heldMemory is the resident memory of this process, and the part of it that is in use for Go's heap.
func heldMemory(b *testing.B) (rss, heap float64) {
	self, err := procfs.Self()
	require.NoError(b, err)
	status, err := self.NewStatus()
	require.NoError(b, err)
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return float64(status.VmRSS) / 1e6, float64(mem.HeapInuse) / 1e6
}
