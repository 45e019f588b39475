package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const secret = "correct-horse-battery"

// beside writes a file beside the configuration's.
func beside(t *testing.T, config, name, text string) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(config), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestATokenMayBeInAFile(t *testing.T) {
	path := write(t, "listen: 0.0.0.0:0\nauth: { token_file: token }\n")
	for _, text := range []string{secret, secret + "\n"} {
		file := beside(t, path, "token", text)
		l, err := Load(Source{File: path, Environ: []string{}})
		require.NoError(t, err)
		require.Equal(t, Auth{TokenFile: file}, l.Config.Auth, "relative to the file")
		require.Equal(t, map[string]string{"": secret}, l.Tokens)
	}

	file := beside(t, path, "credential", "of-the-environment\n")
	l, err := load(t, "", "GATEWAY_AUTH_TOKEN_FILE="+file)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"": "of-the-environment"}, l.Tokens)
	require.Equal(t, "env:GATEWAY_AUTH_TOKEN_FILE", l.Origins["auth.token_file"])

	l, err = load(t, "auth: { token: in the configuration }\n")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"": "in the configuration"}, l.Tokens)
	l, err = load(t, "")
	require.NoError(t, err)
	require.Empty(t, l.Tokens)
}

func TestAFileOfATokenThatEverybodyCanOpenIsWarnedOf(t *testing.T) {
	path := write(t, "auth:\n  token_file: all\n  clients:\n    ci: { token_file: ci, scopes: [write] }\n    own: { token_file: own, scopes: [read] }\n")
	all, ci := beside(t, path, "all", secret), beside(t, path, "ci", secret+"-2")
	beside(t, path, "own", secret+"-3")
	for _, file := range []string{all, ci} {
		require.NoError(t, os.Chmod(file, 0o644))
	}
	l, err := Load(Source{File: path, Environ: []string{}})
	require.NoError(t, err)
	require.Len(t, l.Warnings(), 2)
	require.ErrorContains(t, l.Warnings(), "gateway.yaml:4:23: auth.clients.ci.token_file: every user of this machine can open "+ci+" (mode 0644)\n  Try: chmod 600 "+ci)
	require.ErrorContains(t, l.Warnings(), "gateway.yaml:2:15: auth.token_file: every user of this machine can open "+all)
}

func TestClientsHaveTokensAndScopes(t *testing.T) {
	path := write(t, "listen: 0.0.0.0:0\nauth:\n  clients:\n    ci: { token_file: ci.token, scopes: [write] }\n    on.call: { token: a token of its own, scopes: [read, admin] }\n")
	file := beside(t, path, "ci.token", secret)
	l, err := Load(Source{File: path, Environ: []string{}})
	require.NoError(t, err, "they are tokens enough for others to connect")
	require.True(t, l.Config.Auth.On())
	require.Equal(t, map[string]Client{
		"ci": {TokenFile: file, Scopes: []string{"write"}}, "on.call": {Token: "a token of its own", Scopes: []string{"read", "admin"}},
	}, l.Config.Auth.Clients)
	require.Equal(t, map[string]string{"ci": secret, "on.call": "a token of its own"}, l.Tokens)
}

func TestAWrongTokenIsAMistakeWithAPlaceAndShowsNothing(t *testing.T) {
	files := map[string]string{
		"good": secret, "same": secret + "\n", "empty": "", "blank line": "\n", "short": "short\n", "two lines": secret + "\n" + secret + "\n",
		"crlf": secret + "\r\n", "binary": secret + "\x00\x01", "latin": secret + "\xe9", "padded": secret + " \n", "two ends": secret + "\n\n", "large": strings.Repeat("x", tokenLimit+1),
	}
	for name, c := range map[string]struct{ auth, says string }{
		"a token and a file":           {"token: SECRET, token_file: good", "gateway.yaml:1:51: auth.token_file: token and token_file are both set\nTry: only one of token and token_file"},
		"no file":                      {"token_file: none", "gateway.yaml:1:21: auth.token_file: there is no file "},
		"a folder":                     {"token_file: .", "is not a file"},
		"empty":                        {"token_file: empty", "is empty"},
		"only a line break":            {"token_file: blank line", "is empty"},
		"short":                        {"token_file: short", "shorter than 8 characters"},
		"two lines":                    {"token_file: two lines", "unprintable characters, such as a line break"},
		"a line break of Windows":      {"token_file: crlf", "unprintable characters"},
		"two line breaks":              {"token_file: two ends", "unprintable characters"},
		"binary":                       {"token_file: binary", "unprintable characters"},
		"another encoding":             {"token_file: latin", "unprintable characters"},
		"a blank at the end":           {"token_file: padded", "begins or ends with a space"},
		"large":                        {"token_file: large", "is larger than 4KiB\nTry: a file that holds the token and nothing else"},
		"a tab":                        {`token: "SECRET\t"`, "gateway.yaml:1:16: auth.token: the token has unprintable characters"},
		"a blank before it":            {`token: " SECRET"`, "auth.token: the token begins or ends with a space"},
		"a client with both":           {"clients: { ci: { token: SECRET, token_file: good, scopes: [read] } }", "auth.clients.ci.token_file: token and token_file are both set"},
		"a client without a token":     {"clients: { ci: { scopes: [read] } }", "gateway.yaml:1:20: auth.clients.ci: the client has no token\nTry: token_file: FILE"},
		"a client that may do nothing": {"clients: { ci: { token: SECRET } }", "auth.clients.ci.scopes: the client has no scopes\nTry: scopes: [read]"},
		"an empty list of scopes":      {"clients: { ci: { token: SECRET, scopes: [] } }", "gateway.yaml:1:64: auth.clients.ci.scopes: the client has no scopes"},
		"another scope":                {"clients: { ci: { token: SECRET, scopes: [root] } }", "auth.clients.ci.scopes: \"root\" is not a choice\nTry: read, write, admin"},
		"one scope as text":            {"clients: { ci: { token: SECRET, scopes: read } }", "auth.clients.ci.scopes: a list is expected, not text"},
		"a short token of a client":    {"clients: { ci: { token: x, scopes: [read] } }", "auth.clients.ci.token: shorter than 8"},
		"an unknown key of a client":   {"clients: { ci: { token: SECRET, scopes: [read], scope: x } }", "auth.clients.ci.scope: there is no such key\nTry: scopes, token, token_file"},
		"a client's missing file":      {"clients: { ci: { token_file: none, scopes: [read] } }", "gateway.yaml:1:38: auth.clients.ci.token_file: there is no file "},
		"two clients, one token":       {"clients: { a: { token: SECRET, scopes: [read] }, b: { token_file: same, scopes: [write] } }", "auth.clients.b.token_file: this is also the token of auth.clients.a.token"},
		"that of auth.token":           {"token: SECRET, clients: { a: { token: SECRET, scopes: [read] } }", "auth.clients.a.token: this is also the token of auth.token\nTry: a token of its own"},
		"no name":                      {"clients: { \"a b\": { token: SECRET, scopes: [read] } }", "gateway.yaml:1:9: auth.clients: this is not the name of a client"},
		"a token where the name is":    {"clients: { SECRET: }", "auth.clients: this is not the name of a client"},
		"a token without a key":        {"clients: { SECRET }", "auth.clients: this is not the name of a client"},
		"a token for a client":         {"clients: { ci: SECRET }", "auth.clients.ci: keys with values are expected, not text"},
		"a list of clients":            {"clients: [SECRET]", "auth.clients: keys with values are expected, not a list"},
		"no blank behind a key":        {"clients: { ci: { token:SECRET, scopes: [read], token:x } }", "gateway.yaml:1:"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "auth: { "+strings.ReplaceAll(c.auth, "SECRET", secret)+" }\n")
			for name, text := range files {
				beside(t, path, name, text)
			}
			_, err := Load(Source{File: path, Environ: []string{}})
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "\nTry: ")
			require.Equal(t, 1, strings.Count(err.Error(), "Try:"), err.Error())
			require.NotContains(t, err.Error(), secret)
		})
	}
	_, err := load(t, "", "GATEWAY_AUTH_TOKEN="+secret, "GATEWAY_AUTH_TOKEN_FILE=/nowhere")
	require.ErrorContains(t, err, "GATEWAY_AUTH_TOKEN_FILE: auth.token_file: token and token_file are both set")
}

func TestNoTokenOfAClientIsShown(t *testing.T) {
	path := write(t, "auth:\n  token_file: all\n  clients:\n    ci: { token: "+secret+", scopes: [read, write] }\n    b: { token_file: b, scopes: [admin] }\n")
	all, b := beside(t, path, "all", secret+"-all"), beside(t, path, "b", secret+"-b")
	l, err := Load(Source{File: path, Environ: []string{}})
	require.NoError(t, err)
	text, err := l.Show()
	require.NoError(t, err)
	require.NotContains(t, string(text), secret)
	require.Contains(t, string(text), "token_file: "+all+" # file:2")
	require.Contains(t, string(text), "token: (set) # file:4\n      scopes: [read, write]\n")
	document, err := l.Document()
	require.NoError(t, err)
	require.Equal(t, map[string]any{"token": "", "token_file": all, "clients": map[string]any{
		"ci": map[string]any{"token": "(set)", "scopes": []any{"read", "write"}}, "b": map[string]any{"token_file": b, "scopes": []any{"admin"}},
	}}, document["config"].(map[string]any)["auth"])
	require.Equal(t, secret, l.Config.Auth.Clients["ci"].Token, "the configuration itself is not touched")
}
