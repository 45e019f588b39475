package openai

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gateway/queue"
)

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// logOf makes a turn's log from "type", "type text" entries, a second apart. Attempts that were
// interrupted are given back, so all starts have the number 1.
func logOf(entries ...string) []queue.Event {
	events := make([]queue.Event, 0, len(entries))
	for i, entry := range entries {
		kind, text, _ := strings.Cut(entry, " ")
		e := queue.Event{
			Turn: "t1", Seq: int64(i + 1), Type: queue.EventType(kind), Attempt: 1, Text: text,
			At: epoch.Add(time.Duration(i+1) * time.Second),
		}
		if e.Type == queue.EventCompleted && text != "" {
			e.Text, e.Detail = "", json.RawMessage(text)
		}
		events = append(events, e)
	}
	return events
}

func acceptedTurn() queue.Turn {
	return queue.Turn{
		ID: "t1", Session: "s", Lane: "main", Agent: "echo", Status: queue.Queued, Input: "hi", CreatedAt: epoch,
		Context: json.RawMessage(`{"instructions":"be brief","params":{"temperature":0.5},"metadata":{"k":"v"},"background":true}`),
	}
}

func play(t queue.Turn, events []queue.Event) []responseEvent {
	log := newTranscript(t)
	all := []responseEvent{log.created()}
	for _, e := range events {
		all = append(all, log.apply(e)...)
	}
	return all
}

// line writes an event so that a transcript reads like a page.
func line(e responseEvent) string {
	s := fmt.Sprintf("%d %s", e.number, e.kind)
	switch d := e.document.(type) {
	case responseSnapshot:
		s += " status=" + d.Response.Status
		for _, item := range d.Response.Output {
			s += " output=" + lineOf(item)
		}
		if d.Response.Error != nil {
			s += fmt.Sprintf(" error=%q", d.Response.Error.Message)
		}
		if d.Response.IncompleteDetails != nil {
			s += " reason=" + d.Response.IncompleteDetails.Reason
		}
	case itemEvent:
		s += fmt.Sprintf(" [%d] %s", d.OutputIndex, lineOf(d.Item))
	case argumentsEvent:
		s += fmt.Sprintf(" [%d] %s", d.OutputIndex, d.ItemID)
	case deltaEvent:
		s += fmt.Sprintf(" [%d] %s %q", d.OutputIndex, d.ItemID, d.Delta)
	case textEvent:
		s += fmt.Sprintf(" [%d] %s %q", d.OutputIndex, d.ItemID, d.Text)
	case partEvent:
		s += fmt.Sprintf(" [%d] %s %q", d.OutputIndex, d.ItemID, d.Part.Text)
	}
	return s
}

func lineOf(item any) string {
	switch item := item.(type) {
	case outputItem:
		if len(item.Content) == 0 {
			return item.ID + " " + item.Status
		}
		return fmt.Sprintf("%s %s %q", item.ID, item.Status, item.Content[0].Text)
	case callItem:
		return fmt.Sprintf("%s %s %s(%s)", item.ID, item.Status, item.Name, item.Arguments)
	}
	return fmt.Sprint(item)
}

func TestALogReadsAsAResponseStream(t *testing.T) {
	var page strings.Builder
	for _, c := range [][]string{
		{"started", "delta Hel", "delta lo", "completed"},
		{"started", "completed"},
		{"started", "delta Hel", "interrupted by the gateway", "started", "delta Hello", "completed"},
		{"started", "interrupted by the gateway", "interrupted by the gateway", "started", "completed"},
		{"started", "delta Hel", "failed exit status 1"},
		{"failed too many attempts"},
		{"started", "delta Hel", "cancelled on request"},
		{"cancelled on request"},
		{"started", "failed exit status 1", "requeued", "started", "delta ok", "completed"},
		{"started", `completed {"finish_reason":"tool_calls","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"[1]"}}]}`},
		{"started", "delta Let me see", `completed {"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]}`},
		{"started", "delta Hel", `completed {"finish_reason":"length"}`},
	} {
		fmt.Fprintf(&page, "# %s\n", strings.Join(c, ", "))
		for _, e := range play(acceptedTurn(), logOf(c...)) {
			page.WriteString(line(e) + "\n")
		}
		page.WriteString("\n")
	}
	golden(t, "response_streams.txt", page.String())
}

func TestTheDocumentsOfAResponseStream(t *testing.T) {
	var page strings.Builder
	for _, e := range play(acceptedTurn(), logOf("started", "delta Hello", "completed")) {
		raw, err := json.MarshalIndent(e.document, "", "  ")
		require.NoError(t, err)
		fmt.Fprintf(&page, "%s\n", raw)
	}
	golden(t, "response_documents.txt", page.String())
}

// Whatever a turn has become since, its stream is the same, number by number: a client may resume on any
// connection and after any restart.
func TestTheNumbersOfAStreamDoNotDependOnWhenItIsRead(t *testing.T) {
	events := logOf("started", "delta a", "interrupted", "started", "delta b", "failed no", "requeued", "started", "delta c", "completed")
	want, err := json.Marshal(documents(play(acceptedTurn(), events)))
	require.NoError(t, err)

	turn := acceptedTurn()
	turn.Status, turn.Attempt, turn.Output, turn.LastEvent = queue.Completed, 1, "c", int64(len(events))
	turn.StartedAt, turn.FinishedAt = &events[7].At, &events[9].At
	got, err := json.Marshal(documents(play(turn, events)))
	require.NoError(t, err)
	require.JSONEq(t, string(want), string(got))

	for i, e := range play(turn, events) {
		require.EqualValues(t, i, e.number, "a gap")
	}
}

func documents(events []responseEvent) []any {
	all := make([]any, 0, len(events))
	for _, e := range events {
		all = append(all, e.document)
	}
	return all
}

// What the stream ends with is what a later GET shows.
func TestAStreamEndsWithTheResponseThatIsKept(t *testing.T) {
	for _, entries := range [][]string{
		{"started", "delta Hello", "completed"},
		{"started", "delta Hel", "interrupted", "started", "delta Hello", "completed"},
		{"started", "delta Hel", "failed exit status 1"},
		{"started", "cancelled on request"},
	} {
		events := logOf(entries...)
		end := events[len(events)-1]
		kept := acceptedTurn()
		kept.Status, kept.FinishedAt = queue.Status(end.Type), &end.At
		for i := range events {
			if events[i].Type == queue.EventStarted {
				kept.StartedAt = &events[i].At
			}
		}
		if kept.Status == queue.Completed {
			kept.Output = "Hello"
		} else {
			kept.Error = end.Text
		}
		all := play(acceptedTurn(), events)
		require.Equal(t, responseOf(kept), all[len(all)-1].document.(responseSnapshot).Response)
	}
}
