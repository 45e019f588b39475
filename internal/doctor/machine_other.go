//go:build !linux

package doctor

// doubtfulFileSystem knows no file system of this system.
func doubtfulFileSystem(string) (kind, short string) { return "", "" }

// whoListens cannot find the process on this system.
func whoListens(string) (pid int, name string) { return 0, "" }

// openFilesOf cannot read the limit on this system.
func openFilesOf(int) (uint64, bool) { return 0, false }
