package statedir

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFolderHasOneIdentityWhoeverAsksFirst(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	keys := make([]ed25519.PublicKey, 8)
	for i := range keys {
		all.Go(func() {
			var err error
			keys[i], err = Identity(dir)
			require.NoError(t, err)
		})
	}
	all.Wait()
	for _, key := range keys {
		require.Len(t, key, ed25519.PublicKeySize)
		require.Equal(t, keys[0], key)
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
	info, err := files[0].Info()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	other, err := Identity(t.TempDir())
	require.NoError(t, err)
	require.NotEqual(t, keys[0], other)
}

func TestAnIdentityThatCannotBeReadIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), IdentityFile)
	require.NoError(t, os.WriteFile(path, []byte("what"), 0o600))
	_, err := Identity(filepath.Dir(path))
	require.ErrorContains(t, err, "Try: ")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "what", string(text))
}
