package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"

	"gateway/internal/statedir"
)

// benchConfig has an agent that answers immediately and an agent that never answers.
const benchConfig = `
state_dir: %s
log: { level: warn, format: json }
listen: 127.0.0.1:0
turns: { max_queued: 1000000 }
lanes:
  main: { concurrency: %d }
agents:
  held: { type: command, command: [sleep, infinity] }
`

// BenchmarkProgramMemory is what the program holds, in megabytes: when it has just started, after turns ran, with
// turns that wait.
func BenchmarkProgramMemory(b *testing.B) {
	const sessions = 100_000
	b.Run("idle", func(b *testing.B) {
		pid, address := runGateway(b, 4)
		reportMemory(b, pid, address)
	})
	b.Run("ran=100000", func(b *testing.B) {
		pid, address := runGateway(b, 1000)
		post(b, address, "echo", sessions, false)
		reportMemory(b, pid, address)
	})
	b.Run("queued=100000", func(b *testing.B) {
		const running = 4
		pid, address := runGateway(b, running)
		post(b, address, "held", running+sessions, true)
		reportMemory(b, pid, address)
	})
}

// runGateway returns once the gateway is Running. It is stopped at the end of the benchmark.
func runGateway(b *testing.B, concurrency int) (pid int, address string) {
	dir := b.TempDir()
	config, state := filepath.Join(dir, "gateway.yaml"), filepath.Join(dir, "state")
	require.NoError(b, os.WriteFile(config, fmt.Appendf(nil, benchConfig, state, concurrency), 0o600))
	cmd := exec.CommandContext(context.Background(), binary(b), "run")
	cmd.Env = append(os.Environ(), "GATEWAY_CONFIG="+config)
	cmd.Stderr = os.Stderr
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		require.NoError(b, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(b, cmd.Wait())
	})
	control := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return statedir.DialSocket(ctx, state) },
	}}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(60 * time.Second); ; {
		select {
		case <-tick.C:
			var s statusJSON
			if resp, err := get(b, control, "http://gateway/v1/lifecycle"); err == nil {
				require.NoError(b, json.NewDecoder(resp.Body).Decode(&s))
				require.NoError(b, resp.Body.Close())
			}
			if s.State == "Running" {
				return cmd.Process.Pid, s.Address
			}
		case <-deadline:
			b.Fatal("the gateway does not start")
		}
	}
}

func get(b *testing.B, client *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
	require.NoError(b, err)
	return client.Do(req)
}

// post sends a turn to each of n sessions. When it returns the connections are closed.
func post(b *testing.B, address, agent string, n int, background bool) {
	const producers = 64
	transport := &http.Transport{MaxIdleConnsPerHost: producers}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var clients sync.WaitGroup
	for first := range producers {
		clients.Go(func() {
			for i := first; i < n; i += producers {
				session := fmt.Sprint("session-", i)
				if _, _, err := ask(b.Context(), client, address, session, agent, "hello", session, background); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// reportMemory reads the resident memory from outside, and asks the gateway which part of it is its heap.
func reportMemory(b *testing.B, pid int, address string) {
	proc, err := procfs.NewProc(pid)
	require.NoError(b, err)
	status, err := proc.NewStatus()
	require.NoError(b, err)
	b.ReportMetric(float64(status.VmRSS)/1e6, "RSS-MB")
	b.ReportMetric(0, "ns/op") // how long it took to get there is not what is measured

	resp, err := get(b, http.DefaultClient, "http://"+address+"/metrics")
	require.NoError(b, err)
	defer func() { require.NoError(b, resp.Body.Close()) }()
	defer http.DefaultClient.CloseIdleConnections()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_heap_inuse_bytes "); ok {
			bytes, err := strconv.ParseFloat(value, 64)
			require.NoError(b, err)
			b.ReportMetric(bytes/1e6, "heap-MB")
			return
		}
	}
	b.Fatal("the gateway does not report the size of its heap")
}
