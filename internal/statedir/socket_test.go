package statedir

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheControlSocketWorksInADeepFolder(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))} {
		require.NoError(t, os.MkdirAll(dir, 0o700))
		ln, err := ListenSocket(t.Context(), dir)
		require.NoError(t, err)
		st, err := os.Stat(SocketPath(dir))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
		c, err := DialSocket(t.Context(), dir)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, ln.Close())
		_, err = DialSocket(t.Context(), dir)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		RemoveSocket(dir)
		_, err = DialSocket(t.Context(), dir)
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}
