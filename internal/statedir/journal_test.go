package statedir

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheJournalIsBoundedAndSurvivesATornLine(t *testing.T) {
	dir := t.TempDir()
	j := OpenJournal(dir)
	total := 0
	for i := range 6000 {
		j.Add(map[string]any{"n": i, "fill": strings.Repeat("x", 100)})
		total++
		if i%100 == 0 { // let the writer keep up, so that nothing is left out
			j.Close()
			j = OpenJournal(dir)
		}
	}
	require.Zero(t, j.Close())
	f, err := os.OpenFile(filepath.Join(dir, JournalFile), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"n": 60`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	var last struct{ N int }
	lines := 0
	require.NoError(t, ReadJournal(dir, func(line []byte) {
		lines++
		require.NoError(t, json.Unmarshal(line, &last))
	}))
	require.Equal(t, 5999, last.N)
	require.Less(t, lines, 6000)
	require.NoError(t, ReadJournal(t.TempDir(), func([]byte) { t.Fatal("no journal, no lines") }))
}
