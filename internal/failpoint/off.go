//go:build !failpoints

package failpoint

import "time"

// Enabled reports whether marks do anything.
const Enabled = false

// At marks a moment.
func At(string) {}

// Now is the wall clock.
func Now() time.Time { return time.Now() }

// Hour is the time between two of what happens hourly.
func Hour() time.Duration { return time.Hour }
