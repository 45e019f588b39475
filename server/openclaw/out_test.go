package openclaw

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Frames of every size arrive whole and in their order, also while the client pings, which the library answers.
func TestFramesOfAnySizeArriveWholeAndInOrder(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	var sizes []int
	for _, around := range []int{60, 126, 1 << 10, batchSize, 1 << 16, 1 << 20} {
		for n := -60; n <= 2; n += 1 + around>>17 {
			sizes = append(sizes, around+n)
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for range 20 {
			if err := w.Conn.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		}
		w.Write(`{"type":"req","id":"1","method":"health"}`)
	})
	all.Go(func() {
		for _, n := range sizes {
			g.hub.tell("health", strings.Repeat("x", n))
		}
	})
	answered := false
	for _, n := range sizes {
		for {
			f := w.Read() // counts the numbers
			answered = answered || f["id"] == "1"
			if text, ok := f["payload"].(string); ok {
				require.Len(t, text, n)
				break
			}
		}
	}
	if !answered {
		w.Response("1") // the pings have ended
	}
}

// Events that come close together are gathered, and a response never overtakes an event that came before it.
func TestAResponseDoesNotOvertakeEvents(t *testing.T) {
	g := newGateway(t)
	w := g.connect()
	for n := range 100 {
		g.hub.tell("tick", map[string]int{"ts": n})
		f := w.Call("health", `{}`)
		require.Equal(t, true, f["ok"])
		last := w.Events[len(w.Events)-1]
		for last["event"] != "tick" {
			w.Events = w.Events[:len(w.Events)-1]
			last = w.Events[len(w.Events)-1]
		}
		require.Equal(t, map[string]any{"ts": float64(n)}, last["payload"])
	}
}

func TestAnEventIsEncodedAsAnyFrame(t *testing.T) {
	text, err := json.Marshal(frame{Type: "event", Event: "chat", Payload: 1})
	require.NoError(t, err)
	whole, rest, _ := outgoing{text: text[:len(text)-1], seq: 7}.appendTo(nil)
	require.Nil(t, rest)
	want, err := json.Marshal(frame{Type: "event", Event: "chat", Payload: 1, Seq: 7})
	require.NoError(t, err)
	require.Equal(t, append([]byte{0x81, byte(len(want))}, want...), whole)
}
