//go:build !failpoints

package failpoint

// At marks a moment.
func At(string) {}
