package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"
	"github.com/stretchr/testify/require"
)

const openaiToken = "a-token-for-the-test"

// newOpenAIHouse runs a gateway for OpenAI's clients. Turns of its agent gated stop halfway until open is called.
func newOpenAIHouse(t *testing.T, config string) (h *house, url string, open func()) {
	t.Helper()
	gate := filepath.Join(t.TempDir(), "gate")
	require.NoError(t, syscall.Mkfifo(gate, 0o600))
	f, err := os.OpenFile(gate, os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"choices":[{"delta":{"content":"an "}}]}

data: {"choices":[{"delta":{"content":"answer"},"finish_reason":"stop"}]}

data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}

data: [DONE]

`)
	}))
	t.Cleanup(endpoint.Close)
	h = newHouse(t, fmt.Sprintf(`
auth: { token: %s }
default_agent: echo
agents:
  echo: { type: echo }
  endpoint: { type: openai, base_url: %q, model: m }
  gated:
    type: command
    command: [sh, -c, 'i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); [ $i = 100 ] && echo halfway && read -r go <%s; done; exit 0']
%s`, openaiToken, endpoint.URL+"/v1", gate, config))
	h.start()
	return h, "http://" + h.waitState("Running").Address + "/v1/", func() {
		_, err := f.WriteString("go\n")
		require.NoError(t, err)
	}
}

// gatedText is the answer of the agent gated.
func gatedText() string {
	var b strings.Builder
	for i := range 200 {
		fmt.Fprintf(&b, "line %d\n", i)
		if i == 99 {
			b.WriteString("halfway\n")
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// nodeOf is the Node that a client is installed with. Where that is not so the test is skipped, or fails.
func nodeOf(t *testing.T, dir string) string {
	t.Helper()
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	node, err := filepath.Abs(dir + "/node_modules/node-linux-" + arch + "/bin/node")
	require.NoError(t, err)
	_, err = os.Stat(dir + "/node_modules/installed")
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("the client of %s is not installed here. Try: make deps-clients", dir)
	}
	require.NoError(t, err, "Try: make deps-clients")
	return node
}

// nodeClient is a script that uses OpenAI's client for Node against a gateway.
func nodeClient(t *testing.T, script, url string, env ...string) *exec.Cmd {
	t.Helper()
	const dir = "testdata/openai-node"
	node := nodeOf(t, dir)
	cmd := exec.CommandContext(t.Context(), node, script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GATEWAY_URL="+url, "GATEWAY_TOKEN="+openaiToken)
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// OpenAI's client for Node, as it is, gets what it expects of every call that there is.
func TestOpenAIsNodeClient(t *testing.T) {
	_, url, _ := newOpenAIHouse(t, "")
	out, err := nodeClient(t, "calls.mjs", url).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "FAILED")
	t.Logf("%s", out)
}

// cutModes are the ways to restart in which the stream of a client is cut.
var cutModes = []string{"exec", "spawn", "in-process"}

// A client that streams is cut off by a restart, asks for what comes after the last event that it has, and sees each
// event once: those of the attempt that was interrupted, and those of the next.
func TestANodeClientThatARestartCutsOffSeesEachEventOnce(t *testing.T) {
	for _, mode := range cutModes {
		t.Run(mode, func(t *testing.T) {
			h, url, open := newOpenAIHouse(t, "lifecycle: { respawn: "+mode+" }")
			cmd := nodeClient(t, "resume.mjs", url, "MODEL=gated")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			lines, last := bufio.NewScanner(stdout), ""
			for begun := 0; lines.Scan(); last = lines.Text() {
				if lines.Text() != "begun" {
					continue
				}
				_, refused, code := h.gateway("restart", "--force")
				require.Zero(t, code, refused)
				if begun++; begun == 1 {
					open()
				}
			}
			require.NoError(t, cmd.Wait(), "%s", &stderr)
			require.Contains(t, last, `"cuts":1`)
			require.Contains(t, last, fmt.Sprintf(`"text":%q`, gatedText()))
		})
	}
}

func TestAGoClientThatARestartCutsOffSeesEachEventOnce(t *testing.T) {
	for _, mode := range cutModes {
		t.Run(mode, func(t *testing.T) {
			h, url, open := newOpenAIHouse(t, "lifecycle: { respawn: "+mode+" }")
			client := openai.NewClient(option.WithBaseURL(url), option.WithAPIKey(openaiToken))
			var id string
			var text strings.Builder
			var seen []string
			var last, cuts int64
			follow := func(stream *ssestream.Stream[responses.ResponseStreamEventUnion]) error {
				for stream.Next() {
					e := stream.Current()
					if e.Type == "shutdown" || e.Type == "waiting" {
						continue
					}
					require.EqualValues(t, len(seen), e.SequenceNumber, "an event is missing, or came twice")
					seen, last = append(seen, e.RawJSON()), e.SequenceNumber
					if e.Type == "response.created" {
						id = e.Response.ID
					}
					if e.Type != "response.output_text.delta" {
						continue
					}
					before := strings.Contains(text.String(), "halfway")
					text.WriteString(e.Delta)
					if cuts == 0 && !before && strings.Contains(text.String(), "halfway") {
						_, refused, code := h.gateway("restart", "--force")
						require.Zero(t, code, refused)
						open()
					}
				}
				return stream.Err()
			}
			stream := client.Responses.NewStreaming(t.Context(), responses.ResponseNewParams{
				Model: "gated", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("x")},
			})
			for err := follow(stream); err != nil; err = follow(stream) {
				var cut *ssestream.StreamError
				require.ErrorAs(t, err, &cut)
				require.Contains(t, cut.Message, "gateway_restarting")
				cuts++
				stream = client.Responses.GetStreaming(t.Context(), id, responses.ResponseGetParams{StartingAfter: openai.Int(last)})
			}
			require.EqualValues(t, 1, cuts)
			var whole []string
			again := client.Responses.GetStreaming(t.Context(), id, responses.ResponseGetParams{})
			for again.Next() {
				whole = append(whole, again.Current().RawJSON())
			}
			require.NoError(t, again.Err())
			require.Equal(t, whole, seen)
			got, err := client.Responses.Get(t.Context(), id, responses.ResponseGetParams{})
			require.NoError(t, err)
			require.Equal(t, gatedText(), got.OutputText())
		})
	}
}
