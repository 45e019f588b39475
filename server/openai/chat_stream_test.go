package openai

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/server/api"
)

// What is in the log when a stream begins may hold void attempts and earlier ends; none of it shows.
func TestAChatStreamShowsNothingThatWasVoid(t *testing.T) {
	for name, c := range map[string]struct {
		entries []string
		history int64 // the turn's last event when the stream began
		text    string
		err     string
		open    bool // whether the stream has begun before
	}{
		"all live":               {[]string{"started", "delta a", "delta b", "completed"}, 0, "ab", "", true},
		"all on disk":            {[]string{"started", "delta a", "interrupted", "started", "delta b", "delta c", "completed"}, 7, "bc", "", true},
		"void on disk":           {[]string{"started", "delta a", "interrupted", "started", "delta b", "completed"}, 3, "b", "", true},
		"retried since":          {[]string{"started", "delta a", "failed no", "requeued", "started", "delta b", "completed"}, 4, "b", "", true},
		"void live, before text": {[]string{"started", "interrupted", "started", "delta b", "completed"}, 0, "b", "", true},
		"void live, after text":  {[]string{"started", "delta a", "interrupted", "started", "delta b", "completed"}, 0, "a", "attempt_interrupted", true},
		"failed":                 {[]string{"started", "delta a", "failed no"}, 0, "a", "agent_failed", true},
		"cancelled on disk":      {[]string{"started", "delta a", "cancelled no"}, 3, "", "turn_cancelled", true},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{}
			turn := acceptedTurn()
			turn.LastEvent = c.history
			out := &chatStream{Stream: api.NewStream(rec), turn: turn}
			for _, e := range logOf(c.entries...) {
				require.NoError(t, out.event(e))
				if out.ended {
					break
				}
			}
			require.True(t, out.ended)
			text, failed := rec.chunks(t)
			require.Equal(t, c.text, text)
			require.Equal(t, c.err, failed)
			require.Equal(t, c.err == "", strings.HasSuffix(rec.body.String(), "data: [DONE]\n\n"))
		})
	}
	out := &chatStream{Stream: api.NewStream(&recorder{}), turn: acceptedTurn()}
	require.Equal(t, http.StatusConflict, asAPIError(t, out.event(logOf("cancelled on request")[0])).Status,
		"nothing was sent, so the status can say it")
}

type recorder struct{ body strings.Builder }

func (r *recorder) Header() http.Header { return http.Header{} }

func (r *recorder) WriteHeader(int) {}

func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// chunks reads the text that was sent and the code of the error at the end.
func (r *recorder) chunks(t *testing.T) (text, failed string) {
	t.Helper()
	for data := range strings.SplitSeq(strings.TrimSpace(r.body.String()), "\n\n") {
		data = strings.TrimPrefix(data, "data: ")
		if data == "[DONE]" {
			continue
		}
		var document map[string]any
		require.NoError(t, json.Unmarshal([]byte(data), &document), data)
		if e, ok := document["error"].(map[string]any); ok {
			failed, _ = e["code"].(string)
			continue
		}
		choice := document["choices"].([]any)[0].(map[string]any)
		content, _ := choice["delta"].(map[string]any)["content"].(string)
		text += content
	}
	return text, failed
}
