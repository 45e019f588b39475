package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"gateway/internal/config"
	"gateway/queue"
)

func TestMain(m *testing.M) {
	if script := os.Getenv("AGENT_TEST_SCRIPT"); script != "" { // a gateway that is about to be killed
		s, err := New(map[string]config.Agent{"a": {Type: "command", Command: []string{"sh", "-c", script}}}, "/state", zerolog.Nop())
		if err != nil {
			os.Exit(1)
		}
		_ = s.Run(context.Background(), queue.Work{Turn: queue.Turn{Agent: "a"}, Emit: func(string) error { return nil }})
		return
	}
	goleak.VerifyTestMain(m)
}

// try runs one attempt of an agent and returns what it emitted.
func try(ctx context.Context, t *testing.T, a config.Agent, turn queue.Turn) (string, error) {
	t.Helper()
	s, err := New(map[string]config.Agent{"a": a}, "/state", zerolog.Nop())
	require.NoError(t, err)
	turn.Agent = "a"
	var mu sync.Mutex
	var out strings.Builder
	err = s.Run(ctx, queue.Work{
		Turn:     turn,
		Describe: func(json.RawMessage) error { return nil },
		Emit: func(text string) error {
			mu.Lock()
			defer mu.Unlock()
			out.WriteString(text)
			return nil
		},
		History: func(context.Context, int) ([]queue.Turn, error) {
			return []queue.Turn{{Input: "earlier", Output: "answer"}}, nil
		},
	})
	require.NoError(t, s.Close(context.Background()), "nothing is left running")
	mu.Lock()
	defer mu.Unlock()
	return out.String(), err
}

func program(argv ...string) config.Agent { return config.Agent{Type: "command", Command: argv} }

func TestEchoAnswersWithTheInput(t *testing.T) {
	out, err := try(t.Context(), t, config.Agent{Type: "echo"}, queue.Turn{Input: "hello\n"})
	require.NoError(t, err)
	require.Equal(t, "hello\n", out)
}

func TestProgramsAnswer(t *testing.T) {
	for _, c := range []struct {
		argv        []string
		input, want string
	}{
		{[]string{"bc"}, "6 * 7", "42"},
		{[]string{"jq", "-r", ".a"}, `{"a": "b"}`, "b"},
		{[]string{"cat"}, "two\nlines", "two\nlines"},
		{[]string{"printf", "%s|%s", "{input}", "x{input}x"}, "a b; $(ls)", "a b; $(ls)|xa b; $(ls)x"},
		{[]string{"sh", "-c", "cat >/dev/null; printf 'a\\n\\nb\\n\\n\\n'"}, "", "a\n\nb"},
		{[]string{"sh", "-c", "printf 'caf\\303'; sleep 0.1; printf '\\251 \\377'"}, "", "café \uFFFD"},
		{[]string{"true"}, strings.Repeat("unread ", 100_000), ""},
	} {
		if _, err := exec.LookPath(c.argv[0]); err != nil {
			t.Logf("%s is not installed", c.argv[0])
			continue
		}
		out, err := try(t.Context(), t, program(c.argv...), queue.Turn{Input: c.input})
		require.NoError(t, err, c.argv)
		require.Equal(t, c.want, out)
	}
}

func TestAProgramKnowsItsTurnAndNoSecret(t *testing.T) {
	t.Setenv("GATEWAY_AUTH_TOKEN", "secret")
	t.Setenv("NOTIFY_SOCKET", "/run/secret")
	a := program("env")
	a.Env = map[string]string{"LANG": "C"}
	out, err := try(t.Context(), t, a, queue.Turn{ID: "t1", Attempt: 2, Runs: 5, Session: "s", Lane: "main"})
	require.NoError(t, err)
	for _, want := range []string{"GATEWAY_TURN_ID=t1", "GATEWAY_TURN_ATTEMPT=2", "GATEWAY_TURN_RUN=5", "GATEWAY_STATE_DIR=/state", "GATEWAY_SESSION=s", "GATEWAY_LANE=main", "LANG=C"} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out, "secret")
}

func TestAFailureSaysTheExitCodeAndTheEndOfStandardError(t *testing.T) {
	_, err := try(t.Context(), t, program("sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 3"), queue.Turn{})
	require.ErrorContains(t, err, "exit code 3")
	require.ErrorContains(t, err, "the end")
	require.Less(t, len(err.Error()), 4096)
	_, err = try(t.Context(), t, program("sh", "-c", "kill -SEGV $$"), queue.Turn{})
	require.ErrorContains(t, err, "ended by SIGSEGV")
	_, err = try(t.Context(), t, program(filepath.Join(t.TempDir(), "gone")), queue.Turn{})
	require.ErrorContains(t, err, "Try:")
}

func TestStandardErrorIsLogged(t *testing.T) {
	logged := func(script string) string {
		var log strings.Builder
		s, err := New(map[string]config.Agent{"a": program("sh", "-c", script)}, "/state", zerolog.New(&log))
		require.NoError(t, err)
		_ = s.Run(t.Context(), queue.Work{Turn: queue.Turn{ID: "t1", Agent: "a", Runs: 2}, Emit: func(string) error { return nil }})
		return log.String()
	}
	require.JSONEq(t, `{"level": "info", "turn": "t1", "agent": "a", "run": 2, "stderr": "one\ntwo", "message": "the agent wrote to standard error"}`,
		logged("echo one >&2; echo two >&2"))
	require.JSONEq(t, `{"level": "warn", "turn": "t1", "agent": "a", "run": 2, "stderr": "two", "message": "the agent wrote to standard error"}`,
		logged("echo one >&2; echo two >&2; exit 3"))
	require.Less(t, len(logged("head -c 100000 /dev/zero | tr '\\0' x >&2")), 4096)
	require.Empty(t, logged("echo quiet; exit 3"))
}

func TestTheTimeLimitEndsTheWholeGroup(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	a := program("sh", "-c", "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >> "+pids+"; while :; do sleep 1; done' & echo $$ >> "+pids+"; wait; while :; do sleep 1; done")
	a.Timeout = 2 * time.Second
	_, err := try(t.Context(), t, a, queue.Turn{})
	require.ErrorContains(t, err, "longer than its timeout")
	requireGone(t, pids, 2)
}

func TestAnInterruptionIsTheError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	started := filepath.Join(t.TempDir(), "started")
	go func() {
		for {
			if _, err := os.Stat(started); err == nil || ctx.Err() != nil {
				cancel(queue.ErrInterrupted)
				return
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	_, err := try(ctx, t, program("sh", "-c", "trap 'exit 0' TERM; touch "+started+"; while :; do sleep 0.05; done"), queue.Turn{})
	require.ErrorIs(t, err, queue.ErrInterrupted, "although the program ended well")
}

func TestWhatAProgramLeavesBehindIsKilled(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	out, err := try(t.Context(), t, program("sh", "-c", "sleep 600 & echo $! > "+pids+"; echo done"), queue.Turn{})
	require.NoError(t, err)
	require.Equal(t, "done", out)
	requireGone(t, pids, 1)
}

func TestAProgramDiesWithTheGateway(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	gateway := exec.CommandContext(t.Context(), os.Args[0])
	gateway.Env = append(os.Environ(), "AGENT_TEST_SCRIPT=echo $$ > "+pids+"; exec sleep 600")
	require.NoError(t, gateway.Start())
	require.Eventually(t, func() bool { b, _ := os.ReadFile(pids); return len(b) > 0 }, time.Minute, 5*time.Millisecond)
	require.NoError(t, gateway.Process.Kill())
	_ = gateway.Wait()
	requireGone(t, pids, 1)
}

func TestAProgramInheritsNoDescriptor(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "instance-lock")
	f, err := os.Create(lock)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	out, err := try(t.Context(), t, program("sh", "-c", "ls -l /proc/$$/fd"), queue.Turn{})
	require.NoError(t, err)
	require.Contains(t, out, "0 -> ")
	require.NotContains(t, out, lock)
}

func TestAnOutputThatIsNotTakenEndsTheProgram(t *testing.T) {
	s, err := New(map[string]config.Agent{"a": program("yes")}, "/state", zerolog.Nop())
	require.NoError(t, err)
	full := errors.New("the output is larger than allowed")
	err = s.Run(t.Context(), queue.Work{Turn: queue.Turn{Agent: "a"}, Emit: func(string) error { return full }})
	require.ErrorIs(t, err, full)
}

// A disk that is full for a while holds up Emit; what the program had said by then is still in its pipe.
func TestNothingThatAProgramSaidIsDroppedWhileNobodyReads(t *testing.T) {
	for name, script := range map[string]string{
		"and it ends":                "head -c 60000 /dev/zero | tr '\\0' x; echo $$ > $0",
		"and what it leaves goes on": "sleep 600 & head -c 60000 /dev/zero | tr '\\0' x; echo $$ > $0",
	} {
		ended := filepath.Join(t.TempDir(), "pid")
		s, err := New(map[string]config.Agent{"a": program("sh", "-c", script, ended)}, "/state", zerolog.Nop())
		require.NoError(t, err)
		said, first := 0, true
		err = s.Run(t.Context(), queue.Work{Turn: queue.Turn{Agent: "a"}, Emit: func(text string) error {
			if first {
				first = false
				for b := []byte(nil); len(b) == 0; b, _ = os.ReadFile(ended) {
					select {
					case <-time.After(5 * time.Millisecond):
					case <-t.Context().Done():
						return errors.New("the program waits")
					}
				}
				<-time.After(pipeGrace + pipeGrace/4) // the program has ended for so long
			}
			said += len(text)
			return nil
		}})
		require.NoError(t, err, name)
		require.Equal(t, 60_000, said, name)
	}
}

func TestAnUnknownAgentSaysWhichAreKnown(t *testing.T) {
	s, err := New(config.Default().Agents, "/state", zerolog.Nop())
	require.NoError(t, err)
	err = s.Run(t.Context(), queue.Work{Turn: queue.Turn{Agent: "gone"}})
	require.ErrorContains(t, err, "known are echo")
}

// requireGone waits until the processes whose numbers are in the file have ended.
func requireGone(t *testing.T, path string, n int) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	pids := strings.Fields(string(b))
	require.Len(t, pids, n)
	for _, p := range pids {
		pid, err := strconv.Atoi(p)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return unix.Kill(pid, 0) != nil || (err == nil && strings.Contains(string(stat), ") Z "))
		}, time.Minute, 5*time.Millisecond, "process %d is left", pid)
	}
}

// upstream answers chat completions with the given events and remembers the request.
func upstream(t *testing.T, fail *atomic.Int64, status int, events ...string) (config.Agent, *map[string]any) {
	t.Helper()
	var got map[string]any
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fail != nil && fail.Add(-1) >= 0 {
			http.Error(w, `{"error":{"message":"bad key sk-secret, go away"}}`, status)
			return
		}
		got = nil
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range events {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", e)
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return config.Agent{Type: "openai", BaseURL: srv.URL + "/v1/", Model: "m", APIKey: "sk-secret", System: "be brief"}, &got
}

const (
	hel  = `{"choices":[{"delta":{"content":"hel"}}]}`
	lo   = `{"choices":[{"delta":{"content":"lo"},"finish_reason":"stop"}]}`
	done = `[DONE]`
)

func TestAnEndpointGetsTheSessionAndStreams(t *testing.T) {
	a, got := upstream(t, nil, 0, hel, lo, done)
	out, err := try(t.Context(), t, a, queue.Turn{Input: "now"})
	require.NoError(t, err)
	require.Equal(t, "hello", out)
	b, err := json.Marshal((*got)["messages"])
	require.NoError(t, err)
	require.JSONEq(t, `[{"role":"system","content":"be brief"},{"role":"user","content":"earlier"},{"role":"assistant","content":"answer"},{"role":"user","content":"now"}]`, string(b))
	require.Equal(t, "m", (*got)["model"])
}

func TestAnEndpointGetsTheClientsOwnConversationAndParameters(t *testing.T) {
	a, got := upstream(t, nil, 0, lo, done)
	_, err := try(t.Context(), t, a, queue.Turn{Input: "b", Context: json.RawMessage(
		`{"messages":[{"role":"assistant","content":"a"},{"role":"user","content":"b"}],"instructions":"rhyme","params":{"temperature":0,"stop":"x","max_tokens":5}}`)})
	require.NoError(t, err)
	b, err := json.Marshal((*got)["messages"])
	require.NoError(t, err)
	require.JSONEq(t, `[{"role":"system","content":"be brief"},{"role":"system","content":"rhyme"},{"role":"assistant","content":"a"},{"role":"user","content":"b"}]`, string(b))
	require.Equal(t, []any{"x"}, (*got)["stop"])
	require.InDelta(t, 5, (*got)["max_tokens"], 0)
	require.InDelta(t, 0, (*got)["temperature"], 1e-6)
	require.Contains(t, *got, "temperature")
}

func TestWhatMayGoAwayByItselfIsTemporary(t *testing.T) {
	var fail atomic.Int64
	fail.Store(1)
	a, _ := upstream(t, &fail, http.StatusServiceUnavailable, lo, done)
	_, err := try(t.Context(), t, a, queue.Turn{Input: "x"})
	require.True(t, queue.IsTemporary(err), "an overloaded endpoint")
	require.NotContains(t, err.Error(), "sk-secret")

	away := a
	away.BaseURL = "http://127.0.0.1:1/v1"
	_, err = try(t.Context(), t, away, queue.Turn{Input: "x"})
	require.True(t, queue.IsTemporary(err), "nobody listens")

	_, err = try(t.Context(), t, program("sh", "-c", "echo later >&2; exit 75"), queue.Turn{})
	require.True(t, queue.IsTemporary(err), "a program that says so")
	require.ErrorContains(t, err, "exit code 75: later")
	_, err = try(t.Context(), t, program("false"), queue.Turn{})
	require.Error(t, err)
	require.False(t, queue.IsTemporary(err))
}

func TestARefusalIsFinalAndKeepsTheKeySecret(t *testing.T) {
	var fail atomic.Int64
	fail.Store(1)
	a, _ := upstream(t, &fail, http.StatusUnauthorized, lo, done)
	_, err := try(t.Context(), t, a, queue.Turn{Input: "x"})
	require.ErrorContains(t, err, "go away")
	require.False(t, queue.IsTemporary(err))
	require.NotContains(t, err.Error(), "sk-secret")
	require.Equal(t, int64(0), fail.Load(), "asked once")
}

func TestAnAnswerThatIsCutShortFails(t *testing.T) {
	a, _ := upstream(t, nil, 0, hel)
	out, err := try(t.Context(), t, a, queue.Turn{Input: "x"})
	require.Equal(t, "hel", out)
	require.ErrorContains(t, err, "ended before the answer was finished")
}

func FuzzTextWriter(f *testing.F) {
	f.Add([]byte("caf\xc3\xa9\n\n"), 4)
	f.Fuzz(func(t *testing.T, p []byte, cut int) {
		var out strings.Builder
		w := textWriter{emit: func(s string) error { out.WriteString(s); return nil }}
		cut = max(0, min(cut, len(p)))
		for _, part := range [][]byte{p[:cut], p[cut:]} {
			n, err := w.Write(part)
			require.NoError(t, err)
			require.Equal(t, len(part), n)
		}
		require.NoError(t, w.finish())
		whole := string(p)
		if len(whole) < maxHeld && strings.ToValidUTF8(whole, "") == whole {
			require.Equal(t, strings.TrimRight(whole, "\r\n"), out.String())
		}
	})
}
