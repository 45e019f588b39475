package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// The answers of the agents in the pictures; each takes a while.
const pictureAgents = `
lanes: { main: { concurrency: 4 }, cron: { concurrency: 1 }, subagent: { concurrency: 8 }, batch: { concurrency: 2 } }
lifecycle: { drain_timeout: 2m }
agents:
  review:  { type: command, command: [sh, -c, "sleep 0.4; echo 'The diff does two things.'; sleep 0.4; echo '\n1. It closes the listener before the drain ends, so that a client which is late gets a reset.\n2. It renames a flag, which the unit file still has under its old name.'; sleep 0.4; echo '\nThe first is a bug: close after the last turn has ended.'"] }
  digest:  { type: command, command: [sh, -c, "sleep 0.2; echo 'Nine messages, two of them need an answer today.'"] }
  crawl:   { type: command, command: [sh, -c, "for i in $(seq 240); do echo page $i of 240; sleep 0.25; done"] }
  publish: { type: command, command: [sh, -c, "sleep 0.2; echo 'the remote end hung up' >&2; exit 1"] }
`

// The pictures of the README are taken of a page that has something to show, and every view of it is for everyone: in
// the light, in the dark and on a phone, while it works and while it drains.
func TestThePageWithMuchGoingOn(t *testing.T) {
	b := newBrowser(t, 3*time.Minute)
	h := newHouse(t, pictureAgents)
	h.start()
	s := h.waitState("Running")
	turn := func(lane, agent, session, text string) {
		_, stderr, code := h.gateway("send", "--no-wait", "--lane", lane, "--agent", agent, "--session", session, text)
		require.Zero(t, code, stderr)
	}
	b.do(emulation.SetDeviceMetricsOverride(1280, 1180, 1, false), chromedp.Navigate("http://"+s.Address+"/#overview"))
	b.until(says("#state", "Running"))
	turn("main", "review", "release 2.4", "Read the diff of the listener and tell me what is odd.")
	for _, who := range []string{"ana", "ben", "chloe"} {
		turn("main", "digest", "inbox of "+who, "What came in since yesterday?")
	}
	turn("cron", "publish", "nightly", "Publish the report.")
	for i := range 4 {
		turn("batch", "crawl", fmt.Sprintf("crawl %d", i+1), fmt.Sprintf("Read the pages of shelf %d.", i+1))
	}
	turn("subagent", "crawl", "release 2.4 / links", "Which links of the manual are dead?")
	b.until(says("#sum-completed", "4"))
	b.until(says("#sum-failed", "1"))
	b.until(says("#sum-queued", "2"))
	b.until(says("#runs", "release 2.4 / links"))

	b.do(click(`nav a[href="#turns"]`))
	b.until(`document.querySelectorAll("#turn-list button").length === 10`)
	b.keep("turns")
	b.accessible("turns")

	b.do(chromedp.Navigate("http://" + s.Address + "/#chat/release%202.4"))
	b.until(says("#messages .completed", "The first is a bug"))
	b.until(says("#sessions", "inbox of ana"))
	b.until(`document.querySelectorAll("#where option").length > 4`)
	b.do(chromedp.SetValue(`#where select`, "crawl", chromedp.ByQuery), chromedp.SendKeys("#text", "Look for others like it.\r", chromedp.ByQuery))
	b.until(says("#messages .open", "page 4 of 240"))
	b.keep("chat")
	b.accessible("chat")

	b.do(click(`nav a[href="#configuration"]`))
	b.until(says("#config", "agents.review.command"))
	b.keep("configuration")
	b.do(click(`nav a[href="#overview"]`), click("#restart"))
	b.until(says("#confirm", "running turns"))
	b.do(chromedp.SetValue(`#confirm [name="reason"]`, "a new version", chromedp.ByQuery))
	b.accessible("the question before a restart")
	b.do(click("#confirm-yes"))
	b.until(says("#countdown", "release 2.4 / links (crawl)"))
	b.keep("draining")
	b.accessible("draining")
	b.do(click("#resume"))
	b.until(says("#confirm", "Call the restart off?"))
	b.do(click("#confirm-yes"))
	b.until(`document.querySelector("#state").textContent === "Running"`)
	b.until(says("#hops", "Draining → Running"))

	dark := func(on bool) {
		scheme := map[bool]string{true: "dark", false: "light"}[on]
		b.do(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
		b.until(`matchMedia("(prefers-color-scheme: ` + scheme + `)").matches`)
		b.until(`document.querySelector("#plot canvas") !== null`)
	}
	if os.Getenv("GATEWAY_TEST_IMAGES") != "" {
		turn("batch", "digest", "inbox of dan", "What came in since yesterday?")
		b.until("performance.now() > 45000") // until there is something to plot
	}
	b.keep("overview")
	b.accessible("overview")
	dark(true)
	b.keep("dark")
	b.accessible("in the dark")
	dark(false)

	b.do(emulation.SetDeviceMetricsOverride(390, 844, 2, true))
	b.until(`document.querySelector("#plot canvas")?.clientWidth < 390`)
	b.keep("phone")
	for _, view := range []string{"overview", "turns", "chat", "configuration"} {
		b.do(click(`nav a[href="#` + view + `"]`))
		b.until(`!document.querySelector("#` + view + `").hidden`)
		var wide []string
		b.do(chromedp.Evaluate(`[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > 391 && !e.closest(".scroll")).map(e => e.outerHTML.slice(0, 80))`, &wide))
		require.Empty(t, wide, "%s: nothing is wider than the phone", view)
		var width int
		b.do(chromedp.Evaluate(`document.scrollingElement.scrollWidth`, &width))
		require.LessOrEqual(t, width, 390, view)
		if view != "overview" {
			b.keep("phone-" + view)
		}
		b.accessible(view + " on a phone")
	}
	require.NotContains(t, b.text("body"), "undefined")
}
