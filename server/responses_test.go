package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"
	"github.com/stretchr/testify/require"
)

func responseTo(text string) responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: "echo", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(text)}}
}

// drain reads a stream to its end: every event as it was sent.
func drain(t *testing.T, stream *ssestream.Stream[responses.ResponseStreamEventUnion]) (events []string) {
	t.Helper()
	for stream.Next() {
		events = append(events, stream.Current().RawJSON())
	}
	require.NoError(t, stream.Err())
	return events
}

func TestAResponseIsAnsweredAndKept(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	params := responseTo("hello there")
	params.Instructions = openai.String("be brief")
	params.Metadata = map[string]string{"k": "v"}
	params.Temperature = openai.Float(0.5)
	got, err := client.Responses.New(t.Context(), params)
	require.NoError(t, err)
	require.Equal(t, "hello there", got.OutputText())
	require.Equal(t, responses.ResponseStatusCompleted, got.Status)
	require.Equal(t, "be brief", got.Instructions.OfString)
	require.Equal(t, "v", got.Metadata["k"])
	require.InDelta(t, 0.5, got.Temperature, 0)

	kept, err := client.Responses.Get(t.Context(), got.ID, responses.ResponseGetParams{})
	require.NoError(t, err)
	require.JSONEq(t, got.RawJSON(), kept.RawJSON())
}

func TestAResponseIsStreamedWithNumbersWithoutGaps(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	stream := client.Responses.NewStreaming(t.Context(), responseTo("hello there"))
	var text, id string
	var next int64
	var last responses.ResponseStreamEventUnion
	for stream.Next() {
		last = stream.Current()
		require.Equal(t, next, last.SequenceNumber)
		next++
		if last.Type == "response.output_text.delta" {
			text += last.Delta
		}
		if last.Type == "response.created" {
			id = last.Response.ID
		}
	}
	require.NoError(t, stream.Err())
	require.Equal(t, "hello there", text)
	require.Equal(t, "response.completed", last.Type)
	kept, err := client.Responses.Get(t.Context(), id, responses.ResponseGetParams{})
	require.NoError(t, err)
	require.JSONEq(t, last.Response.RawJSON(), kept.RawJSON(), "the stream's last word is not what is kept")
}

func TestABackgroundResponseIsPolled(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	params := responseTo("block")
	params.Background = openai.Bool(true)
	got, err := client.Responses.New(t.Context(), params)
	require.NoError(t, err)
	require.Contains(t, []responses.ResponseStatus{responses.ResponseStatusQueued, responses.ResponseStatusInProgress}, got.Status)
	require.True(t, got.Background)
	g.began()
	running, err := client.Responses.Get(t.Context(), got.ID, responses.ResponseGetParams{})
	require.NoError(t, err)
	require.Equal(t, responses.ResponseStatusInProgress, running.Status)
	require.Empty(t, running.Output)
	close(g.agent.Release)
	g.ended(got.ID)
	done, err := client.Responses.Get(t.Context(), got.ID, responses.ResponseGetParams{})
	require.NoError(t, err)
	require.Equal(t, "begun and done", done.OutputText())
}

func TestAnyTailOfAStreamIsTheSameOnEveryConnection(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	created, err := client.Responses.New(t.Context(), responseTo("one two three"))
	require.NoError(t, err)
	whole := drain(t, client.Responses.GetStreaming(t.Context(), created.ID, responses.ResponseGetParams{}))
	require.GreaterOrEqual(t, len(whole), 8)
	for after := range whole {
		tail := drain(t, client.Responses.GetStreaming(t.Context(), created.ID, responses.ResponseGetParams{StartingAfter: openai.Int(int64(after))}))
		require.Len(t, tail, len(whole)-after-1)
		for i := range tail {
			require.Equal(t, whole[after+1+i], tail[i])
		}
	}
	status, _, body := g.do("GET", "/v1/responses/"+created.ID+"?stream=true&starting_after="+"2", "")
	require.Equal(t, http.StatusOK, status)
	require.True(t, strings.HasPrefix(body, "event: response.content_part.added\ndata: {\"type\":\"response.content_part.added\",\"sequence_number\":3,"), body)
}

// The stream that a restart cut and the one that resumes it make up exactly the stream that somebody sees
// who looks only afterwards.
func TestAStreamThatARestartCutsIsResumedExactly(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	stream := client.Responses.NewStreaming(t.Context(), responseTo("block"))
	var events []string
	var last int64
	var id string
	for stream.Next() {
		e := stream.Current()
		if e.Type == "shutdown" {
			require.Contains(t, e.RawJSON(), `"reason":"gateway restarting","restart_expected_ms":1500`)
			require.Equal(t, last, e.SequenceNumber)
			continue
		}
		events, last = append(events, e.RawJSON()), e.SequenceNumber
		switch e.Type {
		case "response.created":
			id = e.Response.ID
		case "response.output_text.delta":
			g.restart()
		}
	}
	var failure *ssestream.StreamError
	require.ErrorAs(t, stream.Err(), &failure, "the client takes a cut stream for a whole answer")
	require.Contains(t, failure.Message, "gateway_restarting")
	require.Equal(t, "error", failure.Event.Type)
	require.Contains(t, string(failure.Event.Data), fmt.Sprintf(`"sequence_number":%d,`, last), "resuming after it would skip an event")

	close(g.agent.Release)
	events = append(events, drain(t, client.Responses.GetStreaming(t.Context(), id, responses.ResponseGetParams{StartingAfter: openai.Int(last)}))...)
	require.Equal(t, drain(t, client.Responses.GetStreaming(t.Context(), id, responses.ResponseGetParams{})), events)

	final, err := client.Responses.Get(t.Context(), id, responses.ResponseGetParams{})
	require.NoError(t, err)
	require.Equal(t, "begun and done", final.OutputText())
	require.Contains(t, events[len(events)-1], final.Output[0].ID)
}

func TestAResponseThatFailedIsAResponse(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	got, err := client.Responses.New(t.Context(), responseTo("fail"))
	require.NoError(t, err)
	require.Equal(t, responses.ResponseStatusFailed, got.Status)
	require.Equal(t, "exit status 1", got.Error.Message)
	require.Empty(t, got.Output)
}

func TestAResponseIsCancelled(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	params := responseTo("block")
	params.Background = openai.Bool(true)
	got, err := client.Responses.New(t.Context(), params)
	require.NoError(t, err)
	g.began()
	for range 2 { // the second time it is as cancelled as the first
		cancelled, err := client.Responses.Cancel(t.Context(), got.ID)
		require.NoError(t, err)
		require.Equal(t, responses.ResponseStatusCancelled, cancelled.Status)
		require.Equal(t, "cancelled", cancelled.IncompleteDetails.Reason)
	}
	events := drain(t, client.Responses.GetStreaming(t.Context(), got.ID, responses.ResponseGetParams{}))
	require.Contains(t, events[len(events)-1], `"type":"response.incomplete"`)
}

func TestAConversationGoesOn(t *testing.T) {
	g := newGateway(t)
	client := g.client()
	first, err := client.Responses.New(t.Context(), responseTo("one"))
	require.NoError(t, err)
	params := responseTo("two")
	params.PreviousResponseID = openai.String(first.ID)
	second, err := client.Responses.New(t.Context(), params)
	require.NoError(t, err)
	require.Equal(t, first.ID, second.PreviousResponseID)
	require.Equal(t, first.Conversation.ID, second.Conversation.ID)
	params = responseTo("three")
	params.Conversation.OfString = openai.String(first.Conversation.ID)
	third, err := client.Responses.New(t.Context(), params)
	require.NoError(t, err)
	require.Equal(t, first.Conversation.ID, third.Conversation.ID)

	status, _, body := g.do("POST", "/v1/responses", `{"input":"x","previous_response_id":"nope"}`)
	require.Equal(t, http.StatusNotFound, status)
	require.Contains(t, body, `"code":"previous_response_not_found"`)
	require.Contains(t, body, `"param":"previous_response_id"`)
}

// The turn was accepted, so it does not need its client any more.
func TestATurnGoesOnWithoutItsClient(t *testing.T) {
	g := newGateway(t)
	res := g.begin("POST", "/v1/responses", `{"input":"block","stream":true}`)
	turn := g.began()
	require.NoError(t, res.Body.Close())
	close(g.agent.Release)
	require.Equal(t, "begun and done", g.ended(turn.ID).Output)
}
