package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyJSONIsRead(t *testing.T) {
	for given, ok := range map[string]bool{
		"": true, "application/json": true, "Application/JSON; charset=utf-8": true,
		"text/plain": false, "application/x-www-form-urlencoded": false, "application/json; =": false,
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
		r.Header.Set("Content-Type", given)
		_, err := ReadObject(httptest.NewRecorder(), r, 10)
		if ok {
			require.NoError(t, err, given)
			continue
		}
		require.Equal(t, http.StatusUnsupportedMediaType, Explain(err).Status, given)
	}
}

func TestALargeBodyIsRefusedWithTheLimit(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"input":"hello"}`))
	_, err := ReadObject(httptest.NewRecorder(), r, 5)
	e := Explain(err)
	require.Equal(t, http.StatusRequestEntityTooLarge, e.Status)
	require.Equal(t, "request_too_large", e.Code)
	require.Contains(t, e.Message, "5 bytes")
}

func TestNamesArePrintable(t *testing.T) {
	require.True(t, Printable("Zürich, 12", 20))
	require.False(t, Printable("a\x00b", 20))
	require.False(t, Printable("a\tb", 20))
	require.False(t, Printable("\xff", 20))
	require.False(t, Printable("abc", 2))
}
