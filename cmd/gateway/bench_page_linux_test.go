package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/heapprofiler"
	cdp "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

const (
	pageTurns   = 10_000
	pageLanes   = 1000
	pageClients = 100
	pageHour    = 3600 // looks, one a second
)

// TestThePageStaysQuick measures the page with many turns, lanes and visitors, and writes docs/bench/page.md. It is for
// make bench-page: figures, and no assertion about them.
func TestThePageStaysQuick(t *testing.T) {
	path := os.Getenv("GATEWAY_TEST_PAGE")
	if path == "" {
		t.Skip("make bench-page")
	}
	b := newBrowser(t, 15*time.Minute)
	lanes := make([]string, pageLanes)
	for i := range lanes {
		lanes[i] = fmt.Sprintf("lane-%d: { concurrency: 2 }", i)
	}
	h := newHouse(t, "turns: { max_queued_per_session: 100000 }\nlanes: { "+strings.Join(lanes, ", ")+" }\n")
	h.start()
	s := h.waitState("Running")
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * pageClients}}
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(32)
	for i := range pageTurns {
		g.Go(func() error {
			_, _, err := ask(ctx, client, s.Address, fmt.Sprintf("session-%d", i%500), "echo", fmt.Sprintf("turn number %d of many", i), fmt.Sprint(i), false)
			return err
		})
	}
	require.NoError(t, g.Wait())

	timed := func(what string) (ms float64) {
		b.do(chromedp.Evaluate(`(async () => { const began = performance.now(); `+what+`; return performance.now() - began; })()`, &ms,
			func(p *cdp.EvaluateParams) *cdp.EvaluateParams { return p.WithAwaitPromise(true) }))
		return ms
	}
	median := func(n int, what string) float64 {
		all := make([]float64, n)
		for i := range all {
			all[i] = timed(what)
		}
		slices.Sort(all)
		return all[n/2]
	}
	const painted = `await new Promise(done => requestAnimationFrame(() => setTimeout(done)))`
	var rows []string
	row := func(what, format string, args ...any) {
		rows = append(rows, "| "+what+" | "+fmt.Sprintf(format, args...)+" |")
	}

	b.do(chromedp.Navigate("http://" + s.Address + "/#turns"))
	b.until(`document.querySelectorAll("#turn-list button").length === 100`)
	var load float64
	b.do(chromedp.Evaluate(`performance.getEntriesByType("navigation")[0].loadEventEnd`, &load))
	row("the page is loaded", "%.0f ms", load)
	var weight float64
	b.do(chromedp.Evaluate(`[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].filter(e => e.name.endsWith("/") || e.name.includes("/#") || e.name.includes("/page/")).reduce((n, e) => n + e.transferSize, 0) / 1000`, &weight))
	row("all that it loads, compressed, with the heads", "%.1f kB", weight)
	const older = `const count = () => document.querySelector("#turn-count").textContent; const n = count(); document.querySelector("#more").click();
		for (const began = Date.now(); count() === n && Date.now() - began < 5000;) await new Promise(done => setTimeout(done, 2)); ` + painted
	row("100 older turns, asked for and painted", "%.0f ms", median(9, older))
	for listed := 0; listed < pageTurns; {
		timed(older)
		b.do(chromedp.Evaluate(`parseInt(document.querySelector("#turn-count").textContent)`, &listed))
	}
	row(fmt.Sprintf("what is new, with %d listed", pageTurns), "%.0f ms", median(9, `await (await import("/page/turns.js")).renew(); `+painted))
	row(fmt.Sprintf("a search through %d", pageTurns), "%.0f ms", median(9, `const f = document.querySelector("#filter [name=text]"); f.value = f.value ? "" : "number 77"; f.dispatchEvent(new Event("input", { bubbles: true }));
		const n = document.querySelector("#turn-count").textContent; while (document.querySelector("#turn-count").textContent === n) await new Promise(done => setTimeout(done, 2)); `+painted)-150)

	b.do(click(`nav a[href="#overview"]`))
	b.do(click("#all-lanes"))
	b.until(fmt.Sprintf(`document.querySelectorAll("#lanes tr").length >= %d`, pageLanes))
	const busy = `globalThis.told ??= (await (await fetch("/v1/lanes")).json()).lanes; for (const l of told) l.queued++; (await import("/page/lanes.js")).news({ lanes: told, all: true })`
	row(fmt.Sprintf("a change in each of %d lanes, all of them listed, painted", pageLanes), "%.0f ms", median(21, busy+"; "+painted))

	heap := func() (mb float64) {
		b.do(heapprofiler.CollectGarbage(), chromedp.Evaluate(`performance.memory.usedJSHeapSize / 1e6`, &mb))
		return mb
	}
	before := heap()
	timed(fmt.Sprintf(`for (let i = 0; i < %d; i++) { %s; (await import("/page/lanes.js")).tick(true); }`, pageHour, busy))
	row(fmt.Sprintf("memory of the page's scripts, before and after %d such changes, one a second for an hour", pageHour), "%.1f MB, %.1f MB", before, heap())
	b.do(chromedp.Navigate("about:blank"))

	alone := visitors(t, client, s.Address, 1)
	held := h.memory(s.PID)
	many := visitors(t, client, s.Address, pageClients)
	row(fmt.Sprintf("memory of the gateway before and after %d pages were open", pageClients), "%.0f MB, %.0f MB", held, h.memory(s.PID))
	row("a turn while one page is open, median and 99th of a hundred", "%.1f ms, %.1f ms", alone[0], alone[1])
	row(fmt.Sprintf("the same with %d pages", pageClients), "%.1f ms, %.1f ms", many[0], many[1])

	text := fmt.Sprintf("# The page with much to show\n\n`make bench-page`, %s, %s, %s/%s, %d cores. Written by the run itself: headless Chromium beside the gateway on the same machine, %d turns in 500 sessions, %d lanes. The %d pages are clients that ask what a page asks: the stream of all that changes.\n\n| | |\n|---|---|\n%s\n",
		time.Now().Format("2 January 2006"), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), pageTurns, pageLanes, pageClients, strings.Join(rows, "\n"))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

// visitors measures a hundred turns, in milliseconds, while so many pages are open.
func visitors(t *testing.T, client *http.Client, address string, n int) (medianAndHigh [2]float64) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	var open sync.WaitGroup
	for range n {
		open.Go(func() {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/events", http.NoBody)
			if err != nil {
				return
			}
			if answer, err := client.Do(r); err == nil {
				_, _ = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
			}
		})
	}
	var took []float64
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := range 100 {
		<-tick.C
		began := time.Now()
		_, _, err := ask(t.Context(), client, address, "visited", "echo", "hello", fmt.Sprintf("visited-%d-%d", n, i), false)
		require.NoError(t, err)
		took = append(took, float64(time.Since(began).Microseconds())/1000)
	}
	leave()
	open.Wait()
	slices.Sort(took)
	return [2]float64{took[50], took[98]}
}
