//go:build !linux

package doctor

// doubtfulFileSystem knows none here.
func doubtfulFileSystem(string) (kind, short string) { return "", "" }

// whoListens cannot see it here.
func whoListens(string) (pid int, name string) { return 0, "" }

// openFilesOf cannot see it here.
func openFilesOf(int) (uint64, bool) { return 0, false }
