package queue

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkRawSync is what the disk itself can do: write a page to a file and sync it, one after another. A
// commit of any number of turns costs at least one of these.
func BenchmarkRawSync(b *testing.B) {
	page := make([]byte, 4096)
	file := func(b *testing.B) *os.File {
		f, err := os.Create(storePath(b))
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, f.Close()) })
		return f
	}
	perSecond := func(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "syncs/s") }

	// A file that grows: the file system has its new size to write down as well.
	b.Run("append", func(b *testing.B) {
		f := file(b)
		for b.Loop() {
			_, err := f.Write(page)
			require.NoError(b, err)
			require.NoError(b, f.Sync())
		}
		perSecond(b)
	})

	// A file that has its size, as a write-ahead log has once it has come round: the least that a sync can cost.
	b.Run("inplace", func(b *testing.B) {
		const pages = 4000
		f := file(b)
		for range pages {
			_, err := f.Write(page)
			require.NoError(b, err)
		}
		require.NoError(b, f.Sync())
		for n := int64(0); b.Loop(); n++ {
			_, err := f.WriteAt(page, n%pages*int64(len(page)))
			require.NoError(b, err)
			require.NoError(b, unix.Fdatasync(int(f.Fd())))
		}
		perSecond(b)
	})
}
