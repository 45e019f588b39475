//go:build !linux

package statedir

// dying is false where the system does not show it; Acquire then refuses a lock at once whose owner is ending.
func dying(int) bool { return false }
