package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNothingAcceptedIsLost is the promise: real programs answer under load while the gateway is restarted
// in every mode, stopped and killed. An outside witness, the agents themselves, writes down what ran.
// GATEWAY_TEST_TURNS and GATEWAY_TEST_SESSIONS make it longer.
func TestNothingAcceptedIsLost(t *testing.T) {
	turns, sessions := envInt(t, "GATEWAY_TEST_TURNS", 400), envInt(t, "GATEWAY_TEST_SESSIONS", 20)
	rounds := envInt(t, "GATEWAY_TEST_RESTARTS", 4)
	witness := t.TempDir()
	script := filepath.Join(witness, "agent.sh")
	require.NoError(t, os.WriteFile(script, []byte(`#!/bin/sh
# The input, upper case; the witness gets a line when the turn begins and one when it ends.
read -r line
echo "begin $GATEWAY_TURN_ID $GATEWAY_TURN_RUN $line" >> "$WITNESS/$GATEWAY_SESSION"
printf '%s\n' "$line" | tr a-z A-Z
echo "end $GATEWAY_TURN_ID $GATEWAY_TURN_RUN $line" >> "$WITNESS/$GATEWAY_SESSION"
`), 0o700))
	config := fmt.Sprintf(`
lanes: { main: { concurrency: 4 }, cron: { concurrency: 1 } }
turns: { max_attempts: 20 }
agents:
  sum:    { type: command, command: [bc] }
  field:  { type: command, command: [jq, -r, .n] }
  upper:  { type: command, command: [%s], env: { WITNESS: %s } }
`, script, witness)
	h := newHouse(t, config)
	h.start()

	var address atomic.Value
	address.Store(h.waitState("Running").Address)
	var disturbed atomic.Bool // from a stop or kill to the next Running, clients may be refused
	var failures atomic.Int64 // of requests while only restarts happened
	record := &history{witness: witness}
	dialer := &net.Dialer{}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address.Load().(string))
	}}
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()
	var clients sync.WaitGroup
	var sent atomic.Int64
	for s := range sessions {
		clients.Go(func() {
			session := fmt.Sprintf("s%d", s)
			for i := range turns / sessions {
				agent, input := "upper", fmt.Sprintf("line %d of %s", i, session)
				want := strings.ToUpper(input)
				switch i % 4 {
				case 1:
					agent, input, want = "sum", fmt.Sprintf("%d + %d", i, s), fmt.Sprint(i+s)
				case 2:
					agent, input, want = "field", fmt.Sprintf(`{"n": %d}`, i*s), fmt.Sprint(i*s)
				}
				key := fmt.Sprintf("%s-%d", session, i)
				for {
					undisturbed := !disturbed.Load()
					var a answer
					var err error
					if i%10 == 9 {
						a, err = h.askByCommand(session, agent, input, key)
					} else {
						a, _, err = ask(t.Context(), client, address.Load().(string), session, agent, input, key, i%2 == 0)
					}
					if err == nil {
						record.acknowledged(a.ID, session, want)
						if a.Status == "completed" && a.text() != want {
							t.Errorf("%s: got %q, want %q", key, a.text(), want)
						}
						break
					}
					if t.Context().Err() != nil {
						return
					}
					if undisturbed && !disturbed.Load() {
						failures.Add(1)
						t.Logf("a request failed while nothing but restarts happened: %v", err)
					}
					select {
					case <-time.After(20 * time.Millisecond): // a client's back-off
					case <-t.Context().Done():
						return
					}
				}
				sent.Add(1)
			}
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	progress := func(share float64) { // of the load
		h.eventually(fmt.Sprintf("%.2f of the load is sent", share), func() bool {
			return float64(sent.Load()) >= share*float64(turns/sessions*sessions)
		})
	}
	part := func(i int) float64 { return 0.2 * float64(i) / float64(rounds/2) }
	// Every kind of restart under the load: exec, then spawn, then in place after a new start.
	restart := func(mode string) {
		out, stderr, code := h.gateway("restart", "--reason", "under load")
		require.Zero(t, code, "%s%s", out, stderr)
		s := h.waitState("Running")
		require.Equal(t, mode, s.RespawnMode)
		address.Store(s.Address)
	}
	began := time.Now()
	for i := range rounds / 2 {
		progress(part(i))
		restart("exec")
	}
	h.configure("lifecycle: { respawn: spawn }" + config)
	for i := range rounds/2 + 1 { // the first is the last by exec
		progress(0.2 + part(i))
		restart("spawn")
	}
	progress(0.45)
	disturbed.Store(true)
	require.NoError(t, syscall.Kill(h.waitState("Running").PID, syscall.SIGTERM))
	h.eventually("nobody is left", func() bool { return len(h.alive()) == 0 })
	require.Equal(t, 0, h.wait())
	require.Empty(t, leftovers(t, h.state()))
	h.env = append(h.env, "GATEWAY_NO_RESPAWN=1")
	h.start()
	address.Store(h.waitState("Running").Address)
	transport.CloseIdleConnections()
	disturbed.Store(false)
	for i := range rounds / 2 {
		progress(0.5 + part(i))
		restart("in-process")
	}
	progress(0.75)
	disturbed.Store(true)
	h.signal(syscall.SIGKILL)
	h.wait()
	h.start()
	address.Store(h.waitState("Running").Address)
	transport.CloseIdleConnections()
	disturbed.Store(false)
	<-done
	t.Logf("%d turns in %d sessions, %d restarts, one SIGTERM and one SIGKILL in %s", sent.Load(), sessions, 3*(rounds/2)+1, time.Since(began).Round(time.Millisecond))
	require.Zero(t, failures.Load(), "requests failed while nothing but restarts happened")

	require.Equal(t, int(sent.Load()), record.len(), "every request has a turn of its own")
	h.judge(record)
}

// askByCommand hands the turn over with `gateway send`.
func (h *house) askByCommand(session, agent, input, key string) (a answer, err error) {
	out, stderr, code := h.gateway("send", "--json", "--session", session, "--agent", agent, "--key", key, input)
	if code != 0 {
		return a, fmt.Errorf("gateway send: exit code %d: %s", code, stderr)
	}
	var t turnJSON
	if err := json.Unmarshal([]byte(out), &t); err != nil {
		return a, err
	}
	a.ID, a.Status = t.ID, t.Status
	a.Output = append(a.Output, struct{ Content []struct{ Text string } }{[]struct{ Text string }{{t.Output}}})
	return a, nil
}

func (h *house) get(path string, into any) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://gateway"+path, nil)
	require.NoError(h.t, err)
	resp, err := h.http.Do(req)
	require.NoError(h.t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(h.t, http.StatusOK, resp.StatusCode, path)
	require.NoError(h.t, json.NewDecoder(resp.Body).Decode(into))
}

func (h *house) turn(id string) (t turnJSON) {
	h.t.Helper()
	h.get("/v1/turns/"+id, &t)
	return t
}

func envInt(t *testing.T, name string, standard int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return standard
	}
	var n int
	_, err := fmt.Sscan(s, &n)
	require.NoError(t, err)
	return n
}
