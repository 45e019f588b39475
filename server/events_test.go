package server

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/fsm"
	"gateway/queue"
)

// watching reads the stream of everything.
type watching struct {
	t *testing.T
	r *bufio.Reader
}

func (g *gateway) watch(after string) *watching {
	g.t.Helper()
	res := g.begin("GET", "/v1/events", "", "Last-Event-ID", after)
	require.Equal(g.t, http.StatusOK, res.StatusCode)
	g.t.Cleanup(func() { _ = res.Body.Close() })
	return &watching{g.t, bufio.NewReader(res.Body)}
}

// next is the name and the data of the next event.
func (w *watching) next() (name, data string) {
	w.t.Helper()
	for {
		line, err := w.r.ReadString('\n')
		require.NoError(w.t, err)
		switch line = strings.TrimSuffix(line, "\n"); {
		case line == "" && name != "":
			return name, data
		case strings.HasPrefix(line, "event: "):
			name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			data += line[len("data: "):]
		}
	}
}

// until passes over events to one of that name that fits.
func (w *watching) until(name string, fits func(data string) bool) {
	w.t.Helper()
	for {
		if got, data := w.next(); got == name && fits(data) {
			return
		}
	}
}

func TestOneStreamTellsOfEverything(t *testing.T) {
	g := newGateway(t)
	w := g.watch("0")
	name, data := w.next()
	require.Equal(t, "status", name)
	require.Contains(t, data, `"Running"`)
	name, data = w.next()
	require.Equal(t, "lanes", name)
	require.Contains(t, data, `"lane":"main"`)
	require.Contains(t, data, `"lane":"cron"`)
	require.Contains(t, data, `"all":true`)
	name, data = w.next()
	require.Equal(t, "running", name)
	require.JSONEq(t, `{"turns":[],"more":0}`, data)
	name, _ = w.next()
	require.Equal(t, "hop", name)

	accepted, _, err := g.backend.Queue.Accept(t.Context(), queue.NewTurn{Session: "s", Lane: "main", Agent: "echo", Input: "hello"})
	require.NoError(t, err)
	w.until("turns", func(data string) bool {
		var news turnNews
		require.NoError(t, json.Unmarshal([]byte(data), &news))
		return len(news.Turns) == 1 && news.Turns[0] == queue.Change{Turn: accepted.ID, Session: "s", Lane: "main", Agent: "echo", Status: queue.Completed}
	})
	w.until("lanes", func(data string) bool {
		require.NotContains(t, data, "cron", "it has not changed")
		return strings.Contains(data, `"completed":1`)
	})

	busy, _, err := g.backend.Queue.Accept(t.Context(), queue.NewTurn{Session: "s", Lane: "main", Agent: "echo", Input: "block"})
	require.NoError(t, err)
	w.until("running", func(data string) bool { return strings.Contains(data, busy.ID) })
	g.agent.Release <- struct{}{}
	w.until("running", func(data string) bool { return !strings.Contains(data, busy.ID) })

	_, err = g.backend.Queue.PauseLane(t.Context(), "cron", true)
	require.NoError(t, err)
	w.until("lanes", func(data string) bool { return strings.Contains(data, `"paused":true`) })

	g.machine.move(fsm.Draining, false)
	w.until("hop", func(data string) bool { return strings.Contains(data, "Draining") })
	w.until("status", func(data string) bool { return strings.Contains(data, "Draining") })
}

func TestTheStreamOfEverythingGoesOnInTheNextGeneration(t *testing.T) {
	g := newGateway(t)
	before := g.watch("1")
	g.restart()
	before.until("shutdown", func(data string) bool { return strings.Contains(data, "1500") })
	after := g.watch("1")
	after.until("lanes", func(data string) bool { return strings.Contains(data, `"all":true`) })
	g.machine.move(fsm.Draining, false)
	after.until("hop", func(data string) bool { return strings.Contains(data, `"seq":2`) })
}

func TestAWatcherThatIsTooFarBehindIsCutOffAndOthersAreNot(t *testing.T) {
	g := newGateway(t)
	_, slow := g.feed.join()
	defer g.feed.leave(slow)
	_, quick := g.feed.join()
	for i := range feedBehind + 1 {
		g.feed.mu.Lock()
		g.feed.tellLocked("turns", turnNews{})
		g.feed.mu.Unlock()
		_, open := <-quick
		require.True(t, open, i)
	}
	g.feed.leave(quick)
	told := 0
	for range slow {
		told++
	}
	require.Equal(t, feedBehind, told)
}

func TestOfATurnThatChangedOftenOnlyTheLatestIsTold(t *testing.T) {
	require.Equal(t, []queue.Change{{Turn: "b", Status: queue.Queued}, {Turn: "a", Status: queue.Completed}},
		latest([]queue.Change{{Turn: "a", Status: queue.Queued}, {Turn: "a", Status: queue.Running}, {Turn: "b", Status: queue.Queued}, {Turn: "a", Status: queue.Completed}}))
}

func TestNobodyIsToldWhileNobodyWatches(t *testing.T) {
	g := newGateway(t)
	_, one := g.feed.join()
	_, two := g.feed.join()
	g.feed.leave(one)
	require.NotNil(t, g.feed.stop)
	g.feed.leave(two)
	require.Nil(t, g.feed.stop)
}

func TestAListedTurnSaysWhyItWaits(t *testing.T) {
	g := newGateway(t)
	require.NoError(t, g.backend.Queue.Drain(t.Context(), ""))
	accepted, _, err := g.backend.Queue.Accept(t.Context(), queue.NewTurn{Session: "s", Lane: "main", Agent: "echo", Input: "hello"})
	require.NoError(t, err)
	_, _, body := g.do("GET", "/v1/turns/"+accepted.ID, "")
	require.Contains(t, body, `"reason":"the gateway starts no turns now"`)
	_, _, body = g.do("GET", "/v1/turns", "")
	require.Contains(t, body, `"reason":"the gateway starts no turns now"`)
	g.backend.Queue.Resume()
	g.ended(accepted.ID)
	_, _, body = g.do("GET", "/v1/turns/"+accepted.ID, "")
	require.NotContains(t, body, "waiting")
}

func TestANumberOfTheTimeBeforeAStopMissesNoHop(t *testing.T) {
	g := newGateway(t)
	w := g.watch("17")
	w.until("hop", func(data string) bool { return strings.Contains(data, `"seq":1`) })
}
