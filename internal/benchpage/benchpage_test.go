package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const output = `goos: linux
goarch: amd64
pkg: gateway/queue
cpu: AMD EPYC
BenchmarkRawSync-2                 100   200000 ns/op    5000 syncs/s
BenchmarkTurns/producers=64-2    10000    50000 ns/op   20000 turns/s
BenchmarkTurns/producers=64-2    10000    33000 ns/op   30500 turns/s
BenchmarkTurns/producers=64-2    10000    40000 ns/op   25000 turns/s
BenchmarkMemory-2                    1        9.54 RSS-MB
PASS
ok  	gateway/queue	1.234s
`

func page(t *testing.T, template string) (string, error) {
	t.Helper()
	m, err := read(strings.NewReader(output))
	require.NoError(t, err)
	var b strings.Builder
	err = m.write(&b, template, time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC))
	return b.String(), err
}

func TestPageHasTheFiguresOfTheRun(t *testing.T) {
	for template, want := range map[string]string{
		`{{measured "Turns/producers=64" "turns/s"}}`:                     "25,000 (20,000–30,500)",
		`{{median "Turns/producers=64" "turns/s"}}`:                       "25,000",
		`{{measured "Memory" "RSS-MB"}}`:                                  "9.54",
		`{{per "Turns/producers=64" "turns/s" "RawSync" "syncs/s"}}`:      "5.00",
		`{{atLeast 25000 "Turns/producers=64" "turns/s"}}`:                "≥ 25,000",
		`{{atLeast 44000 "Turns/producers=64" "turns/s"}}`:                "≥ 44,000, **missed**",
		`{{atMost 9.5 "Memory" "RSS-MB"}}`:                                "≤ 9.5, **missed**",
		`{{machine}}, {{date}}`:                                           "linux/amd64, AMD EPYC, GOMAXPROCS 2, 24 November 2026",
		`{{range words "1 2"}}{{median "Memory" "RSS-MB"}} {{.}};{{end}}`: "9.54 1;9.54 2;",
	} {
		got, err := page(t, template)
		require.NoError(t, err, template)
		require.Equal(t, want, got, template)
	}
}

func TestPageWithoutAFigureIsNotWritten(t *testing.T) {
	for _, template := range []string{
		`{{measured "Turns" "turns/s"}}`,
		`{{median "RawSync" "turns/s"}}`,
		`{{per "Memory" "RSS-MB" "Disk" "syncs/s"}}`,
		`{{atMost 1 "Disk" "syncs/s"}}`,
	} {
		_, err := page(t, template)
		require.ErrorContains(t, err, "the run has no", template)
	}
}
