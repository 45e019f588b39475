package openclaw

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"gateway/internal/wire"
)

// audience is a client that keeps what it is told of a run, and drops what it has seen.
type audience struct {
	seen    map[string]float64 // the newest seq, by event
	text    string
	moments []string // what was told besides text
	final   string
	wrong   string // that the parts do not make the whole
}

// hear reports whether the run has ended.
func (l *audience) hear(f map[string]any) bool {
	name, _ := f["event"].(string)
	p, _ := f["payload"].(map[string]any)
	seq, _ := p["seq"].(float64)
	if name != "chat" && name != "agent" || seq <= l.seen[name] {
		return false
	}
	if l.seen == nil {
		l.seen = map[string]float64{}
	}
	l.seen[name] = seq
	data, _ := p["data"].(map[string]any)
	switch {
	case name == "chat" && p["state"] == "delta":
		if p["replace"] == true {
			l.text = ""
		}
		l.text += p["deltaText"].(string)
		if whole := textOf(p); l.text != whole {
			l.wrong = fmt.Sprintf("the parts are %q, the whole is %q", l.text, whole)
		}
	case name == "chat":
		l.moments = append(l.moments, fmt.Sprint(seq, p["state"]))
		l.final = textOf(p)
		return true
	case p["stream"] == "lifecycle":
		l.moments = append(l.moments, fmt.Sprint(seq, data["phase"]))
	}
	return false
}

func textOf(chat map[string]any) string {
	message, _ := chat["message"].(map[string]any)
	return message["content"].([]any)[0].(map[string]any)["text"].(string)
}

// until reads until the condition is met.
func until(w *wire.Client, l *audience, met func() bool) {
	w.T.Helper()
	for !met() {
		l.hear(w.Read())
	}
}

// resume goes on with a run. What came of it before the answer is put aside.
func resume(w *wire.Client, run string, after float64) map[string]any {
	w.T.Helper()
	f := w.Call("chat.resume", fmt.Sprintf(`{"runId":%q,"afterSeq":%v}`, run, after))
	require.Equal(w.T, true, f["ok"], f)
	w.Events = nil
	return f["payload"].(map[string]any)
}

// toTheEnd reads until the run has ended.
func toTheEnd(w *wire.Client, l *audience) {
	w.T.Helper()
	for !l.hear(w.Read()) {
	}
}

// The connection is cut in the middle of a turn that runs again, and the client goes on where it was.
func TestAClientGoesOnWithARunAfterARestart(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	require.Equal(t, true, w.Call("chat.send", `{"message":"talk","idempotencyKey":"long"}`)["ok"])
	var l audience
	g.agent.Say <- "one "
	until(w, &l, func() bool { return l.text == "one " })
	g.agent.Say <- "two "
	until(w, &l, func() bool { return l.text == "one two " })
	g.restart()
	for {
		f, err := w.TryRead()
		if err != nil {
			require.Equal(t, websocket.StatusServiceRestart, websocket.CloseStatus(err))
			break
		}
		l.hear(f)
	}
	g.agent.Say <- "three " // said while nobody hears it
	w = g.connect()
	g.agent.Say <- "four "
	g.agent.Say <- "five "
	answer := resume(w, "long", l.seen["chat"])
	require.Equal(t, "in_flight", answer["status"])
	require.Equal(t, "agent:echo:main", answer["sessionKey"])
	g.agent.Say <- "six"
	close(g.agent.Say)
	toTheEnd(w, &l)
	require.Equal(t, "three four five six", l.text, "the first attempt is void")
	require.Equal(t, l.text, l.final)
	require.Empty(t, l.wrong)

	var all audience
	again := g.connect()
	answer = resume(again, "long", 0)
	require.Equal(t, "ok", answer["status"])
	toTheEnd(again, &all)
	require.Equal(t, all.moments, l.moments, "each event once")
	require.Equal(t, all.final, l.final)
	require.InDelta(t, answer["lastSeq"], all.seen["chat"], 0)
	require.Equal(t, true, again.Call("chat.resume", fmt.Sprintf(`{"runId":"long","afterSeq":%v}`, answer["lastSeq"]))["ok"], "nothing is left")
}

// Clients go on with a run from wherever they are while everybody is told it, and each is told every part once.
func TestARunIsResumedWhileItIsTold(t *testing.T) {
	g := newGateway(t)
	teller := g.connect()
	require.Equal(t, true, teller.Call("chat.send", `{"message":"talk","idempotencyKey":"busy"}`)["ok"])
	type place struct {
		seq  float64
		text string
	}
	places := make(chan place, 1000)
	var others sync.WaitGroup
	for range 4 {
		w := g.connect()
		others.Go(func() {
			resumed := false
			for from := range places { // the first while the run is told, the others when it has ended
				l := audience{seen: map[string]float64{"chat": from.seq, "agent": from.seq}, text: from.text}
				f := w.Call("chat.resume", fmt.Sprintf(`{"runId":"busy","afterSeq":%v}`, from.seq))
				if f["ok"] != true {
					t.Error(f)
					return
				}
				for _, f := range w.Events {
					if p, ok := f["payload"].(map[string]any); ok && resumed && p["runId"] == "busy" {
						t.Error("told again: ", p)
					}
				}
				w.Events, resumed = nil, true
				last := from.seq
				for ended := false; !ended; {
					f := w.Read()
					if p, ok := f["payload"].(map[string]any); ok && p["runId"] == "busy" {
						if p["seq"].(float64) < last || p["seq"].(float64) <= from.seq {
							t.Errorf("%v after %v", p["seq"], last)
						}
						last = p["seq"].(float64)
					}
					ended = l.hear(f)
				}
				if l.text != l.final || l.wrong != "" {
					t.Errorf("%q instead of %q; %s", l.text, l.final, l.wrong)
				}
			}
		})
	}
	said := make(chan struct{})
	go func() {
		defer close(said)
		for i := range 300 {
			g.agent.Say <- fmt.Sprintf("%d ", i)
		}
		close(g.agent.Say)
	}()
	var l audience
	for ended, told := false, ""; !ended; {
		ended = l.hear(teller.Read())
		if l.text != told {
			told = l.text
			places <- place{l.seen["chat"], l.text}
		}
	}
	<-said
	places <- place{}
	close(places)
	others.Wait()
	require.Len(t, strings.Fields(l.final), 300)
}

func TestWhatCannotBeResumedIsRefused(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	require.Equal(t, true, w.Call("chat.send", `{"message":"talk","sessionKey":"a","idempotencyKey":"same"}`)["ok"])
	require.Equal(t, true, w.Call("chat.send", `{"message":"hello","sessionKey":"b","idempotencyKey":"same"}`)["ok"])
	for params, why := range map[string]string{
		`{}`:                                "runId is missing",
		`{"runId":"none"}`:                  "no run \"none\"",
		`{"runId":"same","sessionKey":"c"}`: "no run \"same\"",
		`{"runId":"same","afterSeq":99}`:    "afterSeq 99",
		`{"runId":"same","afterSeq":-1}`:    "afterSeq -1",
		`{"runId":"same","from":1}`:         "from",
	} {
		require.Contains(t, wire.ErrorOf(t, w.Call("chat.resume", params))["message"], why, params)
	}
	first := w.Call("chat.resume", `{"runId":"same","sessionKey":"a"}`)["payload"].(map[string]any)
	require.Equal(t, "agent:echo:a", first["sessionKey"])
	require.Equal(t, "in_flight", first["status"])
	require.Contains(t, wire.ErrorOf(t, w.Call("chat.resume", `{"runId":"same","sessionKey":"a"}`))["message"], "already")
	require.Equal(t, "agent:echo:b", w.Call("chat.resume", `{"runId":"same","sessionKey":"b"}`)["payload"].(map[string]any)["sessionKey"])
	close(g.agent.Say)
}

// What is replayed waits for its client: one that resumes many runs at once is not cut off for it.
func TestReplaysWaitForTheirClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, theirs := piped(t)
		c.start()
		part := strings.Repeat("x", 1<<20)
		c.work.Go(func() {
			for range 2 * replayAhead >> 20 {
				c.replay(run{}, "chat", map[string]any{"deltaText": part})
			}
		})
		synctest.Wait() // nobody reads
		c.mu.Lock()
		buffered := c.buffered
		c.mu.Unlock()
		require.Greater(t, buffered, replayAhead)
		require.Less(t, buffered, replayAhead+2<<20)
		c.finish()
		require.NoError(t, theirs.Close())
	})
}

// A client that has had a run to its end by itself is told nothing of it by those who tell all, who may be behind.
func TestWhoHasHadARunIsNotToldItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, theirs := piped(t)
		c.start()
		all, own := followed{turn: "t"}, followed{turn: "t", only: c}
		h := c.hub
		h.runs[all] = true
		require.NoError(t, c.setApart(own))
		c.work.Go(func() { c.rejoin(own) })
		synctest.Wait()
		c.queueOf("t", []byte(`{"event":"chat"`))
		require.Empty(t, c.waiting)
		h.end(all)
		synctest.Wait()
		require.Empty(t, c.resumed)
		c.finish()
		require.NoError(t, theirs.Close())
	})
}
