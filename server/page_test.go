package server

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThePageIsOnePieceAndLight(t *testing.T) {
	g := newGateway(t)
	files, err := page()
	require.NoError(t, err)
	packed := 0
	for name, f := range files {
		status, header, body := g.do("GET", "/page/"+name, "")
		require.Equal(t, http.StatusOK, status, name)
		require.Equal(t, f.kind, header.Get("Content-Type"))
		require.NotEmpty(t, f.kind, name)
		require.Equal(t, string(f.plain), body)
		require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'")
		require.NotContains(t, header.Get("Content-Security-Policy"), "unsafe")
		status, _, body = g.do("GET", "/page/"+name, "", "If-None-Match", header.Get("ETag"))
		require.Equal(t, http.StatusNotModified, status)
		require.Empty(t, body)
		packed += len(f.packed)
	}
	require.Less(t, packed, 150_000, "bytes over the wire")
	t.Logf("%d bytes over the wire", packed)

	status, header, body := g.do("GET", "/", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "text/html; charset=utf-8", header.Get("Content-Type"))
	require.Contains(t, body, `id="state-Running"`, "the picture is in it")
	for _, outside := range []string{"http://", "https://", "//cdn"} {
		require.NotContains(t, strings.ReplaceAll(body, "http://www.w3.org/", ""), outside, "it asks nobody else")
	}
	require.NotContains(t, body, " style=", "the policy forbids it")

	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/", http.NoBody)
	require.NoError(t, err)
	r.Header.Set("Accept-Encoding", "gzip")
	res, err := http.DefaultTransport.RoundTrip(r) // which does not unpack what was asked for by name
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	require.Equal(t, "gzip", res.Header.Get("Content-Encoding"))
	z, err := gzip.NewReader(res.Body)
	require.NoError(t, err)
	unpacked, err := io.ReadAll(z)
	require.NoError(t, err)
	require.Equal(t, body, string(unpacked))

	status, _, body = g.do("HEAD", "/", "")
	require.Equal(t, http.StatusOK, status)
	require.Empty(t, body)
	status, _, _ = g.do("GET", "/page/nothing.js", "")
	require.Equal(t, http.StatusNotFound, status)
}

func TestThePageNeedsNoTokenAndTheRestDoes(t *testing.T) {
	g := newGateway(t)
	g.backend.Callers = tokenOf("secret")
	g.Publish(g.backend)
	for _, path := range []string{"/", "/page/app.js"} {
		status, _, body := g.do("GET", path, "")
		require.Equal(t, http.StatusOK, status)
		require.NotContains(t, body, "secret")
	}
	for _, path := range []string{"/v1/config", "/v1/lanes", "/v1/lifecycle"} {
		status, _, _ := g.do("GET", path, "")
		require.Equal(t, http.StatusUnauthorized, status, path)
	}
	status, _, _ := g.do("POST", "/", "")
	require.Equal(t, http.StatusUnauthorized, status)

	g.backend.Callers = nil
	g.Publish(g.backend)
	status, _, body := g.do("GET", "/", "", "Host", "evil.example")
	require.Equal(t, http.StatusForbidden, status, "a name that was rebound gets nothing")
	require.Contains(t, body, "host_not_allowed")
}

func TestTheConfigurationIsShown(t *testing.T) {
	g := newGateway(t)
	status, _, body := g.do("GET", "/v1/config", "")
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"file":"","config":{"store":"sqlite"},"origins":{}}`, body)
}
