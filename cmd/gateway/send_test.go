package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/client"
	"gateway/internal/client/clienttest"
)

func TestSendContinuesAfterEveryCutAndPrintsEachDeltaOnce(t *testing.T) {
	var keys, resumed clienttest.Recorder
	dir := clienttest.Turn(t,
		keys.Of(func(r *http.Request) string { return r.Header.Get("Idempotency-Key") }, clienttest.Answers(clienttest.Cut, clienttest.Refusal(http.StatusServiceUnavailable, "away"), clienttest.Accepted)),
		resumed.Of(func(r *http.Request) string { return r.URL.Query().Get("starting_after") }, clienttest.Answers(
			clienttest.StreamThenCut(0, "created", "output_item.added", "output_text.delta:one "),
			clienttest.Refusal(http.StatusServiceUnavailable, "away"),
			clienttest.Cut,
			clienttest.Stream(1, "output_item.added", "output_text.delta:one ", "output_text.delta:two"), // repeats the first delta
			clienttest.Stream(4, "output_text.done", "completed"),
		)),
		map[string]any{"status": "completed", "attempt": 1, "output": "one two"})
	stdout, stderr, code := gatewayAt(t, dir, "send", "hello")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "one two\n", stdout)
	require.Empty(t, stderr)
	require.Equal(t, []string{"", "2", "2", "2", "3"}, resumed.Asked())
	require.Len(t, keys.Asked(), 3)
	require.NotEmpty(t, keys.Asked()[0])
	require.Equal(t, keys.Asked()[0], keys.Asked()[1], "a repeat must be the same turn")
	require.Equal(t, keys.Asked()[0], keys.Asked()[2], "a repeat must be the same turn")
}

func TestSendMarksAnInterruptedAttempt(t *testing.T) {
	dir := clienttest.Turn(t, clienttest.Accepted,
		clienttest.Stream(0, "created", "output_item.added", "output_text.delta:hal", "output_item.done", "output_item.added", "output_text.delta:whole\n", "completed"),
		map[string]any{"status": "completed", "attempt": 2, "runs": 0, "output": "whole\n"})
	stdout, stderr, code := gatewayAt(t, dir, "send", "hello")
	require.Equal(t, 0, code)
	require.Equal(t, "hal\nwhole\n", stdout)
	require.Equal(t, "gateway: the attempt was interrupted and starts again; disregard the text above\n", stderr)

	stdout, stderr, code = gatewayAt(t, dir, "send", "--json", "hello")
	require.Equal(t, 0, code)
	require.JSONEq(t, `{"id": "t1", "session": "main", "status": "completed", "attempt": 2, "runs": 0, "output": "whole\n", "error": ""}`, stdout)
	require.Empty(t, stderr)
}

func TestSendPrintsOneAnswerWhenTheNextAttemptRepeatsIt(t *testing.T) {
	dir := clienttest.Turn(t, clienttest.Accepted,
		clienttest.Stream(0, "created", "output_item.added", "output_text.delta:the who", "output_item.done",
			"output_item.added", "output_text.delta:the ", "output_item.done",
			"output_item.added", "output_text.delta:the wh", "output_text.delta:ole", "output_text.delta: answer", "completed"),
		map[string]any{"status": "completed", "attempt": 3, "output": "the whole answer"})
	stdout, stderr, code := gatewayAt(t, dir, "send", "hello")
	require.Equal(t, 0, code)
	require.Equal(t, "the whole answer\n", stdout)
	require.Empty(t, stderr)
}

func TestSendMarksAnAnswerThatIsShorterThanThePrintedText(t *testing.T) {
	dir := clienttest.Turn(t, clienttest.Accepted,
		clienttest.Stream(0, "created", "output_item.added", "output_text.delta:the whole", "output_item.done",
			"output_item.added", "output_text.delta:the", "completed"),
		map[string]any{"status": "completed", "attempt": 2, "output": "the"})
	stdout, stderr, code := gatewayAt(t, dir, "send", "hello")
	require.Equal(t, 0, code)
	require.Equal(t, "the whole\nthe\n", stdout)
	require.Contains(t, stderr, "disregard the text above")
}

func TestSendOfAFailedTurnPrintsTheReasonAndExitsWithOne(t *testing.T) {
	dir := clienttest.Turn(t, clienttest.Accepted, clienttest.Stream(0, "created", "failed"), map[string]any{"status": "failed", "attempt": 3, "error": "exit code 7"})
	stdout, stderr, code := gatewayAt(t, dir, "send", "hello")
	require.Equal(t, 1, code)
	require.Empty(t, stdout)
	require.Equal(t, "gateway: turn t1 failed: exit code 7\nTry: gateway turns retry t1\n", stderr)
}

func TestSendDoesNotRetryARefusal(t *testing.T) {
	var tries clienttest.Recorder
	dir := clienttest.Turn(t, tries.Of(func(r *http.Request) string { return r.Header.Get("Idempotency-Key") }, clienttest.Refusal(http.StatusTooManyRequests, "too many turns wait. Try: again later")), clienttest.Cut, map[string]any{})
	_, stderr, code := gatewayAt(t, dir, "send", "hello", "--key", "k-1")
	require.Equal(t, 1, code)
	require.Equal(t, "gateway: too many turns wait\nTry: again later\n", stderr)
	require.Equal(t, []string{"k-1"}, tries.Asked())
}

func TestSendThatIsInterruptedReportsThatTheTurnContinues(t *testing.T) {
	dir := clienttest.Turn(t, clienttest.Accepted, func(w http.ResponseWriter, r *http.Request) {
		clienttest.Events(w, 0, "created", "output_item.added", "output_text.delta:hal")
		<-r.Context().Done()
	}, map[string]any{})

	t.Run("after its timeout", func(t *testing.T) {
		stdout, stderr, code := gatewayAt(t, dir, "send", "--timeout", "100ms", "hello")
		require.Equal(t, 1, code)
		require.Equal(t, "hal\n", stdout)
		require.Equal(t, "gateway: no answer within 100ms; turn t1 was accepted and continues\nTry: gateway turns show t1\n", stderr)
	})

	t.Run("on the first Ctrl-C", func(t *testing.T) {
		h := &house{t: t, dir: dir}
		cmd := h.command("send", "hello", "--state-dir", dir)
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		out := bufio.NewReader(stdout)
		_, err = out.ReadString('l')
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		_, err = out.ReadString('\n') // it ends the line that it began
		require.NoError(t, err)
		require.Error(t, cmd.Wait())
		require.Equal(t, 1, cmd.ProcessState.ExitCode())
		require.Contains(t, stderr.String(), "turn t1 was accepted and continues\nTry: gateway turns show t1\n")
	})
}

func TestATurnIsKeptWhenItsGatewayIsLost(t *testing.T) {
	require.EqualError(t, kept("t1", &client.AbsentError{Where: "no gateway is running with the state folder /state", Try: "gateway run"}),
		"lost the gateway (no gateway is running with the state folder /state); turn t1 was accepted and continues when the gateway is back\nTry: gateway run, then gateway turns show t1")
	require.EqualError(t, kept("t1", errors.New("no answer within 1s\nTry: something else")),
		"no answer within 1s; turn t1 was accepted and continues\nTry: gateway turns show t1")
}

func TestSendThatCannotPrintEndsOnTheSecondCtrlC(t *testing.T) {
	dir := clienttest.Turn(t, clienttest.Accepted, clienttest.Stream(0, "output_text.delta:"+strings.Repeat("much ", 1<<18), "completed"), map[string]any{})
	h := &house{t: t, dir: dir}
	cmd := h.command("send", "hello", "--state-dir", dir)
	stdout, err := cmd.StdoutPipe() // of which nobody reads more than the beginning
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = io.ReadFull(stdout, make([]byte, 1))
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	h.eventually("the end", func() bool {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	require.False(t, cmd.ProcessState.Exited(), "it was ended by the signal")
}

func TestSendInterruptedBeforeTheAnswerNamesTheKey(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := clienttest.Turn(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a server sees that the client left once it has read it all
		cancel()
		<-r.Context().Done()
	}, clienttest.Cut, map[string]any{})
	stderr, code := command(ctx, strings.NewReader(""), &bytes.Buffer{}, "send", "hello", "--key", "k-1", "--state-dir", dir)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "it may have accepted the turn\nTry: the same command with --key k-1")
}
