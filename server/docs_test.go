package server

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The page and the code name the same routes and the same errors.
func TestThePageOfTheAPIHasEveryRouteAndEveryError(t *testing.T) {
	text, err := os.ReadFile("../docs/http.md")
	require.NoError(t, err)
	page := string(text)
	routes := bare().routes()
	known := make(map[string]bool)
	for pattern := range routes.gated {
		known[pattern] = true
	}
	for pattern := range routes.always {
		known[pattern] = true
	}
	for pattern := range known {
		require.Contains(t, page, "`"+pattern+"`", "a route")
	}
	for _, found := range regexp.MustCompile("`((?:GET|POST|PUT|PATCH|DELETE) [^`]*)`").FindAllStringSubmatch(page, -1) {
		require.True(t, known[found[1]], "the page tells of %s, which is not there", found[1])
	}

	for code := range codesOfErrors(t) {
		require.Contains(t, page, "`"+code+"`", "an error")
	}
}

// codesOfErrors are the codes that the source makes errors with.
func codesOfErrors(t *testing.T) map[string]bool {
	t.Helper()
	codes := make(map[string]bool)
	var files []string
	for _, room := range []string{"*.go", "*/*.go"} {
		found, err := filepath.Glob(room)
		require.NoError(t, err)
		files = append(files, found...)
	}
	made := regexp.MustCompile(`(?:[Cc]ode: |code, message := |[Uu]navailable\(|[Nn]otFound\(|[Ii]nvalid\([^"]*"[^"]*", |[Ii]nvalid\([^",]*, )"([a-z_]+)"`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, found := range made.FindAllSubmatch(source, -1) {
			codes[string(found[1])] = true
		}
	}
	require.Greater(t, len(codes), 25)
	delete(codes, "unknown_property") // of the WebSocket protocol, where the message is all that is sent
	return codes
}
