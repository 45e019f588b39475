// Command turnspage prints docs/turns.md. The queue has the table of the turn's lifecycle, the configuration has the
// defaults of the settings that the page names, and neither knows the other.
package main

import (
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"gateway/internal/config"
	"gateway/queue"
)

func main() {
	page, err := page()
	if err != nil {
		log.Fatal(err)
	}
	if _, err := os.Stdout.WriteString(page); err != nil {
		log.Fatal(err)
	}
}

func page() (string, error) {
	c := config.Default()
	return queue.Page(map[string]string{
		"turns.max_attempts":         fmt.Sprint(c.Turns.MaxAttempts),
		"turns.retry_backoff":        short(c.Turns.RetryBackoff),
		"turns.on_interrupt":         c.Turns.OnInterrupt,
		"turns.max_output":           c.Turns.MaxOutput.String(),
		"turns.retention":            short(c.Turns.Retention),
		"agents.NAME.timeout":        short(config.DefaultAgentTimeout),
		"lifecycle.drain_timeout":    short(c.Lifecycle.DrainTimeout),
		"lifecycle.shutdown_timeout": short(c.Lifecycle.ShutdownTimeout),
	})
}

// short is the duration without what is zero: 168h, not 168h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if d%time.Minute == 0 {
		s = strings.TrimSuffix(s, "0s")
	}
	if d%time.Hour == 0 {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
