//go:build linux

package main

import (
	_ "embed"
	"io"
	"strings"
	"text/template"
	"time"

	"github.com/dustin/go-humanize"
)

//go:embed page.md.tmpl
var pageText string

// row is a contender as the page shows it.
type row struct {
	Name, Rate, OfOurs, Keeps, Slots, Told, Finished, Order string
	MayLose                                                 bool
}

// report writes the page. Each row's rates are in ascending order.
func report(w io.Writer, l load, rounds int, about surroundings, contenders []contender, rates [][]float64) error {
	rows := make([]row, len(contenders))
	for i, c := range contenders {
		rows[i] = row{
			Name: c.name, Keeps: c.keeps, Slots: c.slots, Told: c.told, Finished: c.finished, Order: c.order, MayLose: c.mayLose,
			Rate:   figure(median(rates[i])) + " (" + figure(rates[i][0]) + "–" + figure(rates[i][len(rates[i])-1]) + ")",
			OfOurs: humanize.FormatFloat("#,###.##", median(rates[i])/median(rates[0])),
		}
	}
	page, err := template.New("page").Funcs(template.FuncMap{"commas": func(n int) string { return humanize.Comma(int64(n)) }}).Parse(pageText)
	if err != nil {
		return err
	}
	return page.Execute(w, map[string]any{
		"About": about, "Rounds": rounds, "Rows": rows, "Input": input, "RiverCooldown": inWords(riverCooldown),
		"Load": map[string]any{"Clients": l.clients, "Warm": inWords(l.warm), "Window": inWords(l.window)},
	})
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func figure(v float64) string { return humanize.Comma(int64(v + 0.5)) }

// inWords is 8 s for 8s.
func inWords(d time.Duration) string {
	said := d.String()
	unit := strings.TrimLeft(said, "0123456789.")
	return strings.TrimSuffix(said, unit) + " " + unit
}
