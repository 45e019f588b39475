package advice

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAdviceStandsOnTheLastLine(t *testing.T) {
	err := Errorf("the file %s: %w", "a", io.ErrUnexpectedEOF).Tryf("rm %s", "a")
	require.EqualError(t, err, "the file a: unexpected EOF\nTry: rm a")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	wrapped := fmt.Errorf("copying: %w", err)
	message, try := Split(wrapped)
	require.Equal(t, "copying: the file a: unexpected EOF", message)
	require.Equal(t, "rm a", try)

	require.Equal(t, wrapped, Default(wrapped, "something else"))
	require.EqualError(t, Default(io.EOF, "gateway --help"), "EOF\nTry: gateway --help")
	require.EqualError(t, Wrap(io.EOF).Try(""), "EOF", "no line without advice")
	message, try = Split(io.EOF)
	require.Equal(t, "EOF", message)
	require.Empty(t, try)
	require.ErrorIs(t, Default(errors.Join(io.EOF, fs.ErrExist), "x"), fs.ErrExist)
}

func TestAMessageOfTheAPIIsSplit(t *testing.T) {
	for text, want := range map[string][2]string{
		"too many. Try: later. Try: never": {"too many", "later. Try: never"},
		"it is so":                         {"it is so", ""},
		"old\nTry: new":                    {"old", "new"},
	} {
		message, try := Sentence(text)
		require.Equal(t, want, [2]string{message, try}, text)
	}
}

// What to try is a field: no other package writes the Try line.
func TestOnlyThisPackageWritesTheTryLine(t *testing.T) {
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "advice/advice.go") {
			return err
		}
		b, err := os.ReadFile(path)
		require.NotContains(t, string(b), `\nTry:`, "%s: use gateway/internal/advice", path)
		return err
	}))
}
