package main

import (
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/dustin/go-humanize"
)

// write fills in the template. It knows:
//
//	measured BENCHMARK UNIT            the median, and the range of repeated runs
//	median BENCHMARK UNIT              the median alone
//	per BENCHMARK UNIT BASE BASEUNIT   the median for each one of the base's
//	atLeast, atMost GOAL BENCHMARK UNIT   the goal, and whether the median misses it
//	machine, go, date                  where and when
//	words TEXT                         the words of a text, to range over
func (m *measurements) write(w io.Writer, text string, now time.Time) error {
	page, err := template.New("page").Option("missingkey=error").Funcs(template.FuncMap{
		"measured": m.measured,
		"median": func(benchmark, unit string) (string, error) {
			v, err := m.median(benchmark, unit)
			return figure(v), err
		},
		"per": m.per,
		"atLeast": func(goal float64, benchmark, unit string) (string, error) {
			v, err := m.median(benchmark, unit)
			return verdict("≥", goal, v >= goal), err
		},
		"atMost": func(goal float64, benchmark, unit string) (string, error) {
			v, err := m.median(benchmark, unit)
			return verdict("≤", goal, v <= goal), err
		},
		"machine": func() string { return m.machine },
		"go":      func() string { return strings.Replace(runtime.Version(), "go", "Go ", 1) },
		"date":    func() string { return now.UTC().Format("2 January 2006") },
		"words":   strings.Fields,
	}).Parse(text)
	if err != nil {
		return err
	}
	return page.Execute(w, nil)
}

func (m *measurements) median(benchmark, unit string) (float64, error) {
	values, err := m.of(benchmark, unit)
	if err != nil {
		return 0, err
	}
	return median(values), nil
}

func (m *measurements) measured(benchmark, unit string) (string, error) {
	values, err := m.of(benchmark, unit)
	if err != nil {
		return "", err
	}
	if len(values) == 1 {
		return figure(values[0]), nil
	}
	return fmt.Sprintf("%s (%s–%s)", figure(median(values)), figure(values[0]), figure(values[len(values)-1])), nil
}

func (m *measurements) per(benchmark, unit, base, baseUnit string) (string, error) {
	v, err := m.median(benchmark, unit)
	if err != nil {
		return "", err
	}
	of, err := m.median(base, baseUnit)
	if err != nil {
		return "", err
	}
	if of == 0 {
		return "", fmt.Errorf("%s is 0 %s", base, baseUnit)
	}
	return figure(v / of), nil
}

func verdict(sign string, goal float64, met bool) string {
	said := sign + " " + humanize.Commaf(goal)
	if !met {
		said += ", **missed**"
	}
	return said
}

// figure has no more digits than a measurement has meaning.
func figure(v float64) string {
	switch {
	case v >= 100:
		return humanize.Commaf(float64(int64(v + 0.5)))
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
