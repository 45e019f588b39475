package daemon

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestEveryMetricIsDocumentedWithItsLabels(t *testing.T) {
	doc, err := os.ReadFile("../../docs/http.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(doc), "### Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := make(map[string]string) // the row
	for row := range strings.Lines(section) {
		for _, name := range regexp.MustCompile("`(gateway_[a-z_]+)`").FindAllStringSubmatch(row, -1) {
			documented[name[1]] = row
		}
	}
	descs := make(chan *prometheus.Desc, 1000)
	newMetrics(&Daemon{}).registry.Describe(descs)
	close(descs)
	about := regexp.MustCompile(`fqName: "(gateway_[^"]+)".*variableLabels: \{([^}]*)\}`)
	for d := range descs {
		found := about.FindStringSubmatch(d.String())
		if found == nil {
			continue // Go's own
		}
		row := documented[found[1]]
		require.NotEmpty(t, row, "%s is in docs/http.md", found[1])
		for label := range strings.SplitSeq(found[2], ",") {
			if label != "" {
				require.Contains(t, row, "`"+label+"`", found[1])
			}
		}
		delete(documented, found[1])
	}
	require.Empty(t, documented, "what is documented exists")
}
