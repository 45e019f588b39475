package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"gateway/fsm"
)

// browser is a headless Chromium that shows the page of a gateway.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // it is the browser
}

func newBrowser(t *testing.T, limit time.Duration) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a browser")
	}
	program, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no chromium. Try: make deps")
		}
		t.Skip("there is no chromium. Try: make deps")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.WindowSize(1280, 900))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {})) // it knows fewer events than the browser
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, limit)
	t.Cleanup(cancel)
	b := &browser{t, ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		if thrown, ok := event.(*runtime.EventExceptionThrown); ok {
			t.Errorf("the page threw: %s", thrown.ExceptionDetails.Error())
		}
	})
	return b
}

func (b *browser) do(actions ...chromedp.Action) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Run(b.ctx, actions...))
}

// until waits until the expression is true in the page.
func (b *browser) until(expression string) {
	b.t.Helper()
	err := chromedp.Run(b.ctx, chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(time.Minute), chromedp.WithPollingInterval(20*time.Millisecond)))
	if err != nil {
		b.t.Fatalf("never came true: %s: %v\nthe page says:\n%s", expression, err, b.text("body"))
	}
}

func (b *browser) text(selector string) (text string) {
	b.t.Helper()
	b.do(chromedp.Evaluate("document.querySelector("+quoteJS(selector)+").innerText", &text))
	return text
}

func quoteJS(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// says is an expression: the element's text contains the text.
func says(selector, text string) string {
	return "(document.querySelector(" + quoteJS(selector) + ")?.innerText ?? \"\").includes(" + quoteJS(text) + ")"
}

func click(selector string) chromedp.Action { return chromedp.Click(selector, chromedp.ByQuery) }

// keep writes a picture for the README when GATEWAY_TEST_IMAGES names a folder.
func (b *browser) keep(name string) {
	b.t.Helper()
	dir := os.Getenv("GATEWAY_TEST_IMAGES")
	if dir == "" {
		return
	}
	var png []byte
	b.do(chromedp.Evaluate("scrollTo(0, 0)", nil), chromedp.CaptureScreenshot(&png))
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

// accessible requires that axe finds nothing serious.
func (b *browser) accessible(view string) {
	b.t.Helper()
	axe, err := os.ReadFile("testdata/axe/axe.min.js")
	require.NoError(b.t, err)
	var found []struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML string }
	}
	b.do(
		chromedp.Evaluate(string(axe)+";0", nil),
		chromedp.Evaluate(`axe.run().then(r => r.violations.map(v => ({ID: v.id, Impact: v.impact, Help: v.help, Nodes: v.nodes.map(n => ({HTML: n.html}))})))`, &found,
			func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }),
	)
	for _, v := range found {
		if v.Impact == "serious" || v.Impact == "critical" {
			b.t.Errorf("%s: %s, %s: %s: %+v", view, v.Impact, v.ID, v.Help, v.Nodes)
		}
	}
}

const pageAgents = `
agents:
  never: { type: command, command: [sleep, "600"] }
`

func TestThePageShowsARestartAndMissesNothing(t *testing.T) {
	b := newBrowser(t, 2*time.Minute)
	release := filepath.Join(t.TempDir(), "release") // what the slow agent waits for
	h := newHouse(t, `
agents:
  slow: { type: command, command: [sh, -c, "echo part 1; until test -e `+release+`; do sleep 0.05; done; echo the end"] }
`)
	h.start()
	s := h.waitState("Running")
	b.do(chromedp.Navigate("http://" + s.Address + "/#chat/desk"))
	b.until(`document.querySelector("#state").textContent === "Running"`)
	b.until(`document.querySelectorAll("#where option").length >= 2`)

	send := func(agent, text string) {
		b.do(chromedp.SetValue(`#where select`, agent, chromedp.ByQuery), chromedp.SendKeys("#text", text+"\r", chromedp.ByQuery))
	}
	send("echo", "hello there")
	b.until(says("#messages .message.completed", "hello there"))

	send("slow", "a long one")
	b.until(says("#messages", "part 1"))
	b.do(click(`nav a[href="#overview"]`), click("#restart"))
	b.until(says("#confirm", "1 running turn"))
	b.do(chromedp.SetValue(`#confirm [name="reason"]`, "to see it", chromedp.ByQuery), click("#confirm-yes"))
	b.until(says("#state", "Draining"))
	b.until(says("#countdown", "desk (slow)"))
	b.until(`document.querySelector("#state-Draining.here.passing") !== null`)
	require.NoError(t, os.WriteFile(release, nil, 0o600))
	b.until(`document.querySelector("#state").textContent === "Running" && document.querySelector("#hops").innerText.includes("Respawning")`)
	hops := b.text("#hops")
	for _, hop := range []string{"Running → Draining", "Draining → ShuttingDown", "ShuttingDown → Respawning", "Starting → Running", "to see it"} {
		require.Contains(t, hops, hop)
	}
	require.Less(t, strings.Index(hops, "Starting → Running"), strings.Index(hops, "Running → Draining"), "the newest first")
	b.do(click(`nav a[href="#chat"]`))
	b.until(says("#messages", "the end"))
	require.Equal(t, 1, strings.Count(b.text("#messages"), "part 1\n"), "nothing twice")
	b.accessible("chat")

	// A turn is shown again when a lost gateway is back.
	require.NoError(t, os.Remove(release))
	send("slow", "another")
	b.until(`[...document.querySelectorAll("#messages .message")].at(-1).innerText.includes("part 1")`)
	_, stderr, code := h.gateway("restart", "--force")
	require.Zero(t, code, stderr)
	require.NoError(t, os.WriteFile(release, nil, 0o600))
	b.until(`[...document.querySelectorAll("#messages .message.completed")].at(-1).innerText.includes("the end")`)
	b.until(`[...document.querySelectorAll("#messages .message")].at(-1).innerText.split("part 1\n").length === 2`)
}

func TestThePageListsCancelsAndExplainsTurns(t *testing.T) {
	b := newBrowser(t, 2*time.Minute)
	h := newHouse(t, pageAgents+"lanes: { main: { concurrency: 1 } }\n")
	h.start()
	s := h.waitState("Running")
	h.send("echo", "<img src=x onerror=alert(1)>")
	h.eventually("it is over", func() bool { s, err := h.status(); return err == nil && s.Turns.Running+s.Turns.Queued == 0 })
	id := h.send("never", "600")
	h.waitRunning(1)
	waits := h.send("echo", "it must wait")
	b.do(chromedp.Navigate("http://" + s.Address + "/#turns"))
	b.until(says("#turn-list", "it must wait"))
	require.Contains(t, b.text("#turn-list"), "<img src=x onerror=alert(1)>", "what users wrote is text")
	b.accessible("turns")

	b.do(chromedp.Evaluate(`[...document.querySelectorAll("#turn-list button")].find(e => e.innerText.includes("it must wait")).click()`, nil))
	b.until(says("#turn", waits))
	b.until(says("#turn-facts", "the lane main is full: 1 of 1 run"))
	require.Contains(t, b.text("#turn-list"), "the lane main is full: 1 of 1 run", "the list shows why it waits")
	b.accessible("a turn")
	b.do(click("#turn .close"))

	b.do(chromedp.Evaluate(`[...document.querySelectorAll("#turn-list button")].find(e => e.innerText.includes("600")).click()`, nil))
	b.until(says("#turn", id))
	b.do(click("#turn-cancel"))
	b.until(says("#confirm", "Cancel the turn?"))
	b.do(click("#confirm-yes"))
	b.until(says("#turn-facts", "cancelled"))
	require.Equal(t, "cancelled", h.turn(id).Status)
	b.do(click("#turn-retry"))
	h.eventually("it runs again", func() bool { return h.turn(id).Status == "running" })
	b.do(click("#turn .close"))

	b.do(click(`nav a[href="#overview"]`), chromedp.WaitVisible("#lanes button", chromedp.ByQuery))
	b.do(click(`[aria-label="Pause the lane main"]`))
	b.until(says("#confirm", "Pause the lane main?"))
	b.do(click("#confirm-yes"))
	b.until(`document.querySelector('[aria-label="Resume the lane main"]') !== null`)
	b.accessible("overview")
	b.do(click(`nav a[href="#configuration"]`))
	b.until(says("#config", "lanes.main.concurrency"))
	require.Contains(t, b.text("#config"), "file:")
	b.accessible("configuration")

	b.do(emulation.SetDeviceMetricsOverride(390, 844, 2, true), click(`nav a[href="#overview"]`))
	b.until(`document.querySelector("#plot canvas")?.clientWidth < 390`)
	var wide []string
	b.do(chromedp.Evaluate(`[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > 391 && !e.closest(".diagram, .scroll")).map(e => e.outerHTML.slice(0, 80))`, &wide))
	require.Empty(t, wide, "nothing is wider than the phone")
	b.accessible("on a phone")
	b.do(emulation.ClearDeviceMetricsOverride(),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
	b.until(`matchMedia("(prefers-color-scheme: dark)").matches`)
	b.until(`document.querySelector("#plot canvas") !== null`)
	b.accessible("in the dark")
}

// A browser has six connections to a gateway, for all of its tabs.
func TestThePageTakesFewConnectionsAndNoneWhileNobodySeesIt(t *testing.T) {
	b := newBrowser(t, 2*time.Minute)
	h := newHouse(t, pageAgents)
	h.start()
	s := h.waitState("Running")
	b.do(chromedp.Navigate("http://" + s.Address + "/#chat/desk"))
	b.until(`document.querySelectorAll("#where option").length >= 2`)
	b.do(chromedp.SetValue(`#where select`, "never", chromedp.ByQuery))
	for i := range 9 {
		b.do(chromedp.SendKeys("#text", "600\r", chromedp.ByQuery))
		b.until(fmt.Sprintf(`document.querySelectorAll("#messages .message.open").length === %d`, i+1))
	}
	require.Contains(t, b.text("#sessions"), "desk")
	b.do(click(`nav a[href="#configuration"]`))
	b.until(says("#config", "lanes.main.concurrency"))
	b.do(click(`nav a[href="#overview"]`))
	b.until(says("#runs", "never · main"))

	hide := func(hidden bool) {
		b.do(chromedp.Evaluate(fmt.Sprintf(`Object.defineProperty(document, "hidden", { value: %t, configurable: true }); document.dispatchEvent(new Event("visibilitychange"))`, hidden), nil))
	}
	hide(true)
	b.until(`performance.getEntriesByName(location.origin + "/v1/events").length > 0`) // the stream has ended
	_, stderr, code := h.gateway("restart", "--force", "--reason", "unseen")
	require.Zero(t, code, stderr)
	hide(false)
	b.until(says("#hops", "unseen"))
	b.until(`document.querySelector("#state").textContent === "Running"`)
	b.until(says("#runs", "never · main"))
}

func TestThePageOutlivesAStop(t *testing.T) {
	b := newBrowser(t, 2*time.Minute)
	h := newHouse(t, pageAgents)
	h.start()
	s := h.waitState("Running")
	b.do(chromedp.Navigate("http://" + s.Address + "/"))
	b.until(`document.querySelector("#state").textContent === "Running"`)
	b.do(click("#stop"))
	b.until(says("#confirm", "Stop the gateway?"))
	b.do(click("#confirm-yes"))
	require.Equal(t, 0, h.wait())
	b.until(`document.querySelector("#state").textContent === "Stopped"`)
	b.until(says("#countdown", "once it is started again"))
	require.Contains(t, b.text("#hops"), "Running → ShuttingDown")

	h.env = append(h.env, "GATEWAY_LISTEN="+s.Address)
	h.launch()
	b.until(`document.querySelector("#state").textContent === "Running"`)
	b.until(`document.querySelector("#countdown").hidden`)
	b.until(`document.querySelector("#hops").innerText.split("Starting → Running").length === 3`)

	h.signal(syscall.SIGKILL)
	b.until(`document.querySelector("#state").textContent === "No answer"`)
	b.until(says("#countdown", "once it does"))
	b.accessible("while nobody answers")
}

func TestThePageAsksForTheToken(t *testing.T) {
	b := newBrowser(t, 2*time.Minute)
	h := newHouse(t, "", "GATEWAY_AUTH_TOKEN=the-right-token-of-this-house")
	h.start()
	s := h.waitState("Running")
	b.do(page.Enable(), chromedp.Navigate("http://"+s.Address+"/"))
	b.until(`document.querySelector("#ask-token").open`)
	require.NotContains(t, b.text("body"), h.state(), "without the token nothing is shown")
	answer := func(token string) {
		b.do(chromedp.SetValue("#token", token, chromedp.ByQuery), click("#ask-token button"))
	}
	answer("a wrong one")
	b.until(says("#ask-token", "That was not it"))
	answer("the-right-token-of-this-house")
	b.until(`document.querySelector("#state").textContent === "Running"`)
	b.do(click(`nav a[href="#configuration"]`))
	b.until(says("#config", "auth.token"))
	require.NotContains(t, b.text("body"), "the-right-token-of-this-house")
}

// A client with the scope read sees all but the configuration; a refusal shows the gateway's message.
func TestThePageSaysWhatATokenMayNotDo(t *testing.T) {
	b := newBrowser(t, 2*time.Minute)
	h := newHouse(t, "auth: { clients: { monitor: { token: the-token-of-the-monitor, scopes: [read] } } }\n")
	h.start()
	s := h.waitState("Running")
	b.do(page.Enable(), chromedp.Navigate("http://"+s.Address+"/"))
	b.until(`document.querySelector("#ask-token").open`)
	b.do(chromedp.SetValue("#token", "the-token-of-the-monitor", chromedp.ByQuery), click("#ask-token button"))
	b.until(`document.querySelector("#state").textContent === "Running"`)
	b.until(says("#lanes", "main"))
	refused := func(scope string) {
		b.until(says("#notice", "this needs the scope "+scope+", and the token of the client monitor has only read"))
		b.do(chromedp.Evaluate(`document.querySelector("#notice").hidden = true`, nil))
	}
	b.do(click("#restart"))
	b.until(`document.querySelector("#confirm").open`)
	b.do(click("#confirm-yes"))
	refused("admin")
	b.do(click("#lanes button"))
	b.until(`document.querySelector("#confirm").open`)
	b.do(click("#confirm-yes"))
	refused("admin")
	b.do(click(`nav a[href="#configuration"]`))
	b.until(says("#config-file", "this needs the scope admin"))
	b.do(click(`nav a[href="#chat"]`))
	b.until(`!document.querySelector("#chat").hidden`)
	b.do(chromedp.SendKeys(`#say [name=text]`, "hello\r", chromedp.ByQuery))
	refused("write")
	b.until(`document.querySelector("#say").text.value.trim() === "hello"`) // the key's own character may come later
	require.Equal(t, "Running", h.waitState("Running").State)
	require.NotContains(t, b.text("body"), "the-token-of-the-monitor")
}

// `make diagram` draws the picture on the page from the table; the picture must not be older than the table.
func TestThePictureOnThePageIsOfThisTable(t *testing.T) {
	svg, err := os.ReadFile("../../server/page/states.svg")
	require.NoError(t, err)
	table := fsm.Lifecycle()
	arrows := make(map[string]bool)
	for _, s := range table.States {
		require.Contains(t, string(svg), `id="state-`+string(s.Name)+`"`, "Try: make diagram")
	}
	for _, c := range table.Cells {
		if c.Kind == fsm.Transition {
			arrows[string(c.State+" "+c.To)] = true
			require.Contains(t, string(svg), "from-"+string(c.State)+" to-"+string(c.To)+`"`, "Try: make diagram")
			require.Contains(t, string(svg), ">"+c.Label()+"<", "Try: make diagram")
		}
	}
	require.Equal(t, len(arrows), strings.Count(string(svg), `class="edge arrow`), "no arrow of an earlier table. Try: make diagram")
}
