//go:build !linux

package child

import "github.com/rs/zerolog"

// Reaper takes the exit status of orphans where a process can be asked to; here it does nothing.
type Reaper struct{}

// NewReaper does nothing.
func NewReaper(zerolog.Logger) *Reaper { return &Reaper{} }

// Close does nothing.
func (*Reaper) Close() {}
