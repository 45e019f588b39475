package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tmaxmax/go-sse"
)

// TestKillsAtRandomMoments kills the gateway at random moments of its work under full load: turns are accepted,
// streamed, waited for, cancelled and given another try all the while. GATEWAY_TEST_KILLS makes it longer.
func TestKillsAtRandomMoments(t *testing.T) {
	killed := killAtRandomMoments(t, envInt(t, "GATEWAY_TEST_KILLS", 10))
	t.Logf("%s", killed.counts())
	killed.requireClean(t)
}

// tally is what came of a run.
type tally struct {
	verdict
	what                                          string
	kills, starting, cancelled, retried, streamed int
}

func (c tally) counts() string {
	return fmt.Sprintf("%d kills, %d of them during a start; %d turns acknowledged, %d asked to cancel, %d given another try, %d events streamed; "+
		"%d lost, %d twice, %d out of order, %d stuck, %d event logs wrong", c.kills, c.starting, c.acknowledged, c.cancelled, c.retried, c.streamed,
		len(c.lost), len(c.twice), len(c.disordered), len(c.stuck), len(c.incomplete))
}

// clients are everybody who uses a gateway that keeps dying, over its control socket, whose name stays.
type clients struct {
	h                            *house
	ctx                          context.Context
	record                       *history
	stop                         chan struct{}
	group                        sync.WaitGroup
	cancelled, retried, streamed atomic.Int64
}

func killAtRandomMoments(t *testing.T, kills int) tally {
	witness := t.TempDir()
	script := filepath.Join(witness, "agent.sh")
	require.NoError(t, os.WriteFile(script, []byte(`#!/bin/sh
# The input twice, with time between; the witness gets a line when the turn begins and one when it ends.
read -r line
echo "begin $GATEWAY_TURN_ID $GATEWAY_TURN_RUN $line" >> "$WITNESS/$GATEWAY_SESSION"
echo "$line"
sleep 0.01
echo "$line"
echo "end $GATEWAY_TURN_ID $GATEWAY_TURN_RUN $line" >> "$WITNESS/$GATEWAY_SESSION"
`), 0o700))
	h := newHouse(t, fmt.Sprintf(`
lanes: { main: { concurrency: 4 } }
turns: { max_attempts: 1000, max_queued: 100000, max_queued_per_session: 100000 }
agents: { twice: { type: command, command: [%s], env: { WITNESS: %s } } }
`, script, witness))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	c := &clients{h: h, ctx: ctx, record: &history{witness: witness}, stop: make(chan struct{})}
	h.start()
	for s := range 16 {
		c.group.Go(func() { c.work(fmt.Sprintf("s%d", s)) })
	}
	starting := 0
	for n := range kills {
		during := n%5 == 4
		if during {
			h.launch()
			<-time.After(rand.N(40 * time.Millisecond)) // the moment is what is tried, not waited for
			starting++
		} else {
			if n > 0 {
				h.start()
			}
			<-time.After(rand.N(200 * time.Millisecond))
		}
		h.signal(syscall.SIGKILL)
		h.wait()
		h.groups = nil // at the end of a long run their numbers may belong to other processes
	}
	h.start()
	close(c.stop)
	patience := time.AfterFunc(30*time.Second, leave) // what is stuck is counted, not waited for
	defer patience.Stop()
	c.group.Wait()
	for ctx.Err() == nil {
		if s, err := h.status(); err == nil && s.Turns.Queued == 0 && s.Turns.Running == 0 {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	v := c.record.judge(h.account(witness))
	h.signal(syscall.SIGTERM)
	require.Equal(t, 0, h.wait())
	return tally{
		verdict: v, kills: kills, starting: starting, what: "killed at random moments of full load",
		cancelled: int(c.cancelled.Load()), retried: int(c.retried.Load()), streamed: int(c.streamed.Load()),
	}
}

// work sends one turn after another and, in turn, leaves it, waits for it, follows it, or cancels it and then gives
// it another try.
func (c *clients) work(session string) {
	for i := 0; ; i++ {
		select {
		case <-c.stop:
			return
		default:
		}
		text := fmt.Sprintf("%d.%s", i, session)
		var id string
		c.insist(func() bool {
			a, _, err := ask(c.ctx, c.h.http, "gateway", session, "twice", text, text, i%4 != 1)
			id = a.ID
			return err == nil
		})
		if id == "" {
			return
		}
		c.record.acknowledged(id, session, text+"\n"+text)
		switch i % 4 {
		case 2:
			c.follow(id)
		case 3:
			c.cancelAndRetry(id)
		}
	}
}

// insist repeats what a dead gateway cannot answer.
func (c *clients) insist(try func() bool) {
	for c.ctx.Err() == nil && !try() {
		select {
		case <-time.After(10 * time.Millisecond): // a client's back-off
		case <-c.ctx.Done():
		}
	}
}

// follow reads the turn's events as they come, and continues after the last one whenever the stream breaks.
func (c *clients) follow(id string) {
	last, ended := int64(0), false
	c.insist(func() bool {
		ctx, cancel := context.WithCancel(c.ctx)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://gateway/v1/turns/%s/events?after=%d", id, last), nil)
		if err != nil {
			return false
		}
		req.Header.Set("Accept", "text/event-stream")
		resp, err := c.h.http.Do(req)
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		for message, err := range sse.Read(resp.Body, nil) {
			var e event
			if err != nil || message.LastEventID == "" || json.Unmarshal([]byte(message.Data), &e) != nil {
				return false
			}
			c.record.streamed(id, e)
			c.streamed.Add(1)
			last, ended = e.Seq, isFinal(e.Type)
		}
		return ended
	})
}

// cancelAndRetry sends each request once: the outcome of a request without an answer is unknown.
func (c *clients) cancelAndRetry(id string) {
	c.cancelled.Add(1)
	c.record.ends(id, "completed", "cancelled")
	switch c.post("/v1/turns/" + id + "/cancel") {
	case http.StatusOK:
		c.record.ends(id, "cancelled")
	case http.StatusConflict:
		c.record.ends(id, "completed")
		return
	}
	c.retried.Add(1)
	switch c.post("/v1/turns/" + id + "/retry") {
	case http.StatusOK, http.StatusConflict: // it waits again, or was never cancelled
		c.record.ends(id, "completed")
	default:
		c.record.ends(id, "completed", "cancelled")
	}
}

// post returns the status, 0 for none.
func (c *clients) post(path string) int {
	req, err := http.NewRequestWithContext(c.ctx, http.MethodPost, "http://gateway"+path, bytes.NewReader(nil))
	if err != nil {
		return 0
	}
	resp, err := c.h.http.Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode
}
