package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gateway/server/api"
)

func TestWhoMayAsk(t *testing.T) {
	const token = "correct horse"
	for name, c := range map[string]struct {
		token, method, path, host string
		header                    map[string]string
		trusted                   bool
		want                      int // 0: may
	}{
		"the token":                    {token: token, header: map[string]string{"Authorization": "Bearer " + token}},
		"the scheme in another case":   {token: token, header: map[string]string{"Authorization": "bearer " + token}},
		"no token":                     {token: token, want: 401},
		"a wrong token":                {token: token, header: map[string]string{"Authorization": "Bearer correct"}, want: 401},
		"another scheme":               {token: token, header: map[string]string{"Authorization": "Basic " + token}, want: 401},
		"an empty token":               {token: token, header: map[string]string{"Authorization": "Bearer "}, want: 401},
		"the control socket":           {token: token, trusted: true},
		"a probe":                      {token: token, path: "/healthz"},
		"a probe from anywhere":        {path: "/readyz", host: "evil.example"},
		"localhost":                    {host: "localhost:18789"},
		"loopback":                     {host: "127.0.0.1:18789"},
		"loopback, version 6":          {host: "[::1]:18789"},
		"loopback without a port":      {host: "[::1]"},
		"a rebound name":               {host: "evil.example:18789", want: 403},
		"a name that looks local":      {host: "localhost.evil.example", want: 403},
		"another address":              {host: "192.168.1.2:18789", want: 403},
		"no host":                      {host: " ", want: 403},
		"any host with the token":      {token: token, host: "gw.example", header: map[string]string{"Authorization": "Bearer " + token}},
		"a page of its own":            {method: "POST", header: map[string]string{"Origin": "http://localhost:1"}, host: "localhost:1"},
		"a page of another origin":     {method: "POST", header: map[string]string{"Origin": "http://evil.example"}, want: 403},
		"another port":                 {method: "POST", header: map[string]string{"Origin": "http://localhost:2"}, host: "localhost:1", want: 403},
		"a page of no origin":          {method: "POST", header: map[string]string{"Origin": "null"}, want: 403},
		"a foreign page with a token":  {token: token, method: "POST", header: map[string]string{"Origin": "http://evil.example", "Authorization": "Bearer " + token}, want: 403},
		"a foreign page only looks":    {header: map[string]string{"Origin": "http://evil.example"}},
		"the browser says cross-site":  {method: "POST", header: map[string]string{"Sec-Fetch-Site": "cross-site"}, want: 403},
		"the browser says same-origin": {method: "POST", header: map[string]string{"Sec-Fetch-Site": "same-origin"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(orElse(c.method, "GET"), orElse(c.path, "/v1/models"), nil)
			r.Host = strings.TrimSpace(orElse(c.host, "localhost:18789"))
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			if c.trusted {
				r = r.WithContext(withTrusted(r.Context()))
			}
			b := &api.Backend{}
			if c.token != "" {
				b.Callers = tokenOf(c.token)
			}
			who, err := authorize(r, b, http.NewCrossOriginProtection())
			if c.want == 0 {
				require.NoError(t, err)
				require.NoError(t, who.May(api.Admin))
				return
			}
			e := asAPIError(t, err)
			require.Equal(t, c.want, e.Status)
			require.Contains(t, e.Message, "Try: ")
			require.NotContains(t, e.Message, token)
		})
	}
}

// tokenOf is an auth.token, which may everything.
func tokenOf(token string) []api.Caller { return []api.Caller{api.NewCaller("", token, api.Admin)} }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Nobody gets in before the first generation has said which token it wants.
func TestBeforeTheFirstGenerationOnlyTheControlSocketMayAsk(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/v1/lifecycle", nil)
	r.Host = "localhost"
	_, err := authorize(r, nil, http.NewCrossOriginProtection())
	require.Equal(t, http.StatusServiceUnavailable, asAPIError(t, err).Status)
	_, err = authorize(r.WithContext(withTrusted(r.Context())), nil, http.NewCrossOriginProtection())
	require.NoError(t, err)
}
