package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/stretchr/testify/require"

	"gateway/queue"
)

func chatOf(text string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "echo", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}}
}

func TestAChatIsAnswered(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	var raw *http.Response
	answer, err := client.Chat.Completions.New(t.Context(), chatOf("hello there"), option.WithResponseInto(&raw))
	require.NoError(t, err)
	id := raw.Header.Get("X-Turn-Id")
	require.Equal(t, "chatcmpl-"+id, answer.ID)
	require.Equal(t, "echo", answer.Model)
	require.Equal(t, "hello there", answer.Choices[0].Message.Content)
	require.Equal(t, "stop", answer.Choices[0].FinishReason)
	require.True(t, answer.JSON.Usage.Valid())
	require.Zero(t, answer.Usage.TotalTokens)

	turn := g.ended(id)
	require.Equal(t, "main", turn.Lane)
	require.Equal(t, "chat-"+turn.IdempotencyKey, turn.Session)
}

func TestAChatIsStreamed(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	params := chatOf("hello there")
	params.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Chat.Completions.NewStreaming(t.Context(), params)
	var whole openai.ChatCompletionAccumulator
	var usage bool
	for stream.Next() {
		chunk := stream.Current()
		require.True(t, whole.AddChunk(chunk))
		usage = usage || chunk.JSON.Usage.Valid()
	}
	require.NoError(t, stream.Err())
	require.Equal(t, "hello there", whole.Choices[0].Message.Content)
	require.Equal(t, "stop", whole.Choices[0].FinishReason)
	require.True(t, usage)
}

func TestAChatStreamEndsWithDone(t *testing.T) {
	g := newGateway(t)
	status, header, body := g.do("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}],"stream":true}`)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "text/event-stream", header.Get("Content-Type"))
	require.NotEmpty(t, header.Get("X-Turn-Id"))
	require.True(t, strings.HasSuffix(body, "data: [DONE]\n\n"), body)
	require.NotContains(t, body, "usage")
}

func TestTheSessionOfAChatIsNamedByHeaderThenUserThenKey(t *testing.T) {
	g := newGateway(t)
	for _, c := range []struct {
		body    string
		headers []string
		want    string
	}{
		{`{"messages":[{"role":"user","content":"a"}],"user":"ann"}`, []string{"X-Session-Id", "desk", "X-Lane", "cron"}, "desk"},
		{`{"messages":[{"role":"user","content":"b"}],"user":"ann"}`, nil, "ann"},
		{`{"messages":[{"role":"user","content":"c"}]}`, []string{"Idempotency-Key", "k1"}, "chat-k1"},
	} {
		_, header, _ := g.do("POST", "/v1/chat/completions", c.body, c.headers...)
		require.Equal(t, c.want, g.ended(header.Get("X-Turn-Id")).Session)
	}
}

func TestAFailedAgentIsABadGatewayThatClientsDoNotRepeat(t *testing.T) {
	g := newGateway(t)
	status, header, body := g.do("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"fail"}]}`)
	require.Equal(t, http.StatusBadGateway, status)
	require.Equal(t, "false", header.Get("X-Should-Retry"))
	require.Equal(t, queue.Failed, g.ended(header.Get("X-Turn-Id")).Status)
	require.Contains(t, body, `"code":"agent_failed"`)
	require.Contains(t, body, "exit status 1")

	// A client that repeats by itself would have run the agent again.
	client := openai.NewClient(option.WithBaseURL(g.url+"/v1/"), option.WithAPIKey("none"), option.WithMaxRetries(2), option.WithHTTPClient(g.http))
	_, err := client.Chat.Completions.New(t.Context(), chatOf("fail"))
	require.Error(t, err)
	_, _, list := g.do("GET", "/v1/turns", "")
	require.Len(t, decode(t, list)["turns"], 2)
}

func TestAStreamedFailureIsAnErrorForTheClient(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	stream := client.Chat.Completions.NewStreaming(t.Context(), chatOf("fail"))
	for stream.Next() {
		require.Empty(t, stream.Current().Choices[0].FinishReason)
	}
	var failure *ssestream.StreamError
	require.ErrorAs(t, stream.Err(), &failure)
	require.Contains(t, failure.Message, "agent_failed")
}

// A restart ends a chat's stream with an error, never with a short answer; the same request then gets the
// whole one, without the text that the interruption made void.
func TestAChatStreamThatARestartCutsIsRepeatedWhole(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	key := option.WithHeader("Idempotency-Key", "k1")
	stream := client.Chat.Completions.NewStreaming(t.Context(), chatOf("block"), key)
	got := ""
	for stream.Next() {
		got += stream.Current().Choices[0].Delta.Content
		if got == "begun " {
			g.restart()
			got += "| "
		}
	}
	var failure *ssestream.StreamError
	require.ErrorAs(t, stream.Err(), &failure)
	require.Contains(t, failure.Message, "gateway_restarting")
	require.Equal(t, "begun | ", got)

	close(g.agent.Release)
	stream = client.Chat.Completions.NewStreaming(t.Context(), chatOf("block"), key)
	got = ""
	for stream.Next() {
		got += stream.Current().Choices[0].Delta.Content
	}
	require.NoError(t, stream.Err())
	require.Equal(t, "begun and done", got)
}

// Before the first byte a restart is invisible: the gate holds the request and runs it again.
func TestAChatThatHasNotBegunOutlivesARestart(t *testing.T) {
	g := newGateway(t)
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprintf("stream=%v", stream), func(t *testing.T) {
			require.NoError(t, g.backend.Queue.Drain(t.Context(), ""))
			// require may not be called where the request waits.
			bodies, failures := make(chan string, 1), make(chan error, 1)
			body := fmt.Sprintf(`{"messages":[{"role":"user","content":"hello"}],"stream":%v}`, stream)
			r, err := g.request("POST", "/v1/chat/completions", body)
			require.NoError(t, err)
			go func() {
				res, err := g.http.Do(r)
				if err != nil {
					failures <- err
					return
				}
				raw, err := io.ReadAll(res.Body)
				failures <- errors.Join(err, res.Body.Close())
				bodies <- string(raw)
			}()
			waitFor(t, func() bool { return g.backend.Queue.Stats().Queued == 1 })
			g.restart()
			require.NoError(t, <-failures)
			got := <-bodies
			require.Contains(t, got, `"content":"hello"`)
			require.Equal(t, stream, strings.HasSuffix(got, "data: [DONE]\n\n"))
		})
	}
	_, _, list := g.do("GET", "/v1/turns", "")
	require.Len(t, decode(t, list)["turns"], 2, "a replay made a turn of its own")
}
