package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// measurements is one run.
type measurements struct {
	// values by benchmark and unit, in ascending order; never empty.
	values map[string]map[string][]float64
	// machine is what the run says of it.
	machine string
}

func read(r io.Reader) (*measurements, error) {
	m := &measurements{values: map[string]map[string][]float64{}}
	results := benchfmt.NewReader(r, "standard input")
	for results.Scan() {
		switch rec := results.Result().(type) {
		case *benchfmt.Result:
			m.add(rec)
		case *benchfmt.SyntaxError:
			return nil, rec
		}
	}
	for _, units := range m.values {
		for _, values := range units {
			slices.Sort(values)
		}
	}
	return m, results.Err()
}

func (m *measurements) add(r *benchfmt.Result) {
	base, parts := r.Name.Parts()
	name, procs := string(base), "1"
	for _, part := range parts {
		if n, ok := strings.CutPrefix(string(part), "-"); ok {
			procs = n
			continue
		}
		name += string(part)
	}
	m.machine = fmt.Sprintf("%s/%s, %s, GOMAXPROCS %s", r.GetConfig("goos"), r.GetConfig("goarch"), r.GetConfig("cpu"), procs)
	units := m.values[name]
	if units == nil {
		units = map[string][]float64{}
		m.values[name] = units
	}
	for _, v := range r.Values {
		if v.OrigUnit != "" {
			v.Value, v.Unit = v.OrigValue, v.OrigUnit
		}
		units[v.Unit] = append(units[v.Unit], v.Value)
	}
}

// of returns what was measured, in ascending order.
func (m *measurements) of(benchmark, unit string) ([]float64, error) {
	values, ok := m.values[benchmark][unit]
	if !ok {
		return nil, fmt.Errorf("the run has no %s of %s", unit, benchmark)
	}
	return values, nil
}

// median of values in ascending order.
func median(values []float64) float64 {
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
