package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/internal/client/clienttest"
	"gateway/internal/statedir"
)

// command runs the program's root command in this process, as main does.
func command(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) (stderr string, code int) {
	var errOut bytes.Buffer
	root := newRootCommand(stdin, stdout, &errOut)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	complain(&errOut, err)
	return errOut.String(), int(exitCode(err))
}

// gatewayAt runs a command against the gateway of a state folder.
func gatewayAt(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out bytes.Buffer
	stderr, code = command(t.Context(), strings.NewReader(""), &out, append(args, "--state-dir", dir)...)
	return out.String(), stderr, code
}

func TestATokenIsSentOnlyToTheURL(t *testing.T) {
	t.Setenv("GATEWAY_TOKEN", "correct-horse")
	var seen []string
	handler := func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		clienttest.Refusal(http.StatusUnauthorized, "the token is wrong. Try: GATEWAY_TOKEN")(w, r)
	}
	remote := httptest.NewServer(http.HandlerFunc(handler))
	defer remote.Close()
	_, stderr, code := gatewayAt(t, t.TempDir(), "lanes", "--url", remote.URL)
	require.Equal(t, 1, code)
	require.Equal(t, "gateway: the token is wrong\nTry: GATEWAY_TOKEN\n", stderr)

	dir, _ := clienttest.Serve(t, http.HandlerFunc(handler))
	_, _, code = gatewayAt(t, dir, "lanes")
	require.Equal(t, 1, code)
	require.Equal(t, []string{"Bearer correct-horse", ""}, seen)
}

func TestAWrongTokenIsRefusedWithWhereToSetIt(t *testing.T) {
	srv := httptest.NewServer(clienttest.Document(http.StatusUnauthorized, map[string]any{"error": map[string]any{"message": "no", "code": "invalid_api_key"}}))
	t.Cleanup(srv.Close)
	for token, want := range map[string]string{"": "needs a token", "wrong": "does not accept this token"} {
		o := &options{url: srv.URL, token: token}
		c, err := o.connect()
		require.NoError(t, err)
		_, err = c.Snapshot(t.Context())
		require.EqualError(t, err, srv.URL+" "+want+"\nTry: GATEWAY_TOKEN or --token, with the auth.token of the gateway")
	}
}

func TestAnAnswerThatIsNotAGatewaysIsAnError(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<html>")
	}))
	defer page.Close()
	_, stderr, code := gatewayAt(t, t.TempDir(), "lanes", "--url", page.URL)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "reading the answer of "+page.URL)
	require.Contains(t, stderr, "\nTry: ")
}

func TestASocketOfAnotherUserIsNotAnAbsentGateway(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may connect to every socket")
	}
	dir, _ := clienttest.Serve(t, http.NotFoundHandler())
	require.NoError(t, os.Chmod(statedir.SocketPath(dir), 0))
	stdout, stderr, code := gatewayAt(t, dir, "status")
	require.Equal(t, 1, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "another user's")
}

func TestTheTableOfTurnsCannotBeBrokenByAnInput(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/turns", clienttest.Document(http.StatusOK, map[string]any{"turns": []any{
		map[string]any{"id": "a", "session": "main", "agent": "echo", "status": "completed", "attempt": 1, "input": "red \x1b[31m\tand\rback\nsecond line"},
	}, "has_more": true}))
	dir, _ := clienttest.Serve(t, mux)
	stdout, stderr, code := gatewayAt(t, dir, "turns")
	require.Equal(t, 0, code)
	require.Contains(t, stdout, "red  [31m and back\n")
	require.NotContains(t, stdout, "\x1b")
	require.Equal(t, "more turns: --limit, or --before a\n", stderr)
}

func TestChatAndTopNeedATerminal(t *testing.T) {
	for _, name := range []string{"top", "chat"} {
		_, stderr, code := gatewayAt(t, t.TempDir(), name)
		require.Equal(t, 64, code)
		require.Contains(t, stderr, name+" needs a terminal\nTry: gateway ")
	}
}
