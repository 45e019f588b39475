package process

import (
	"path/filepath"

	"github.com/nightlyone/lockfile"
)

// Owned reports whether the process that the lockfile of a state folder names is alive. It is for who waits
// for the end of a gateway: the lockfile is the last that a clean end removes, after the socket and the
// store. Whether one may start, only [Acquire] says.
func Owned(dir string) bool {
	pid, err := lockfile.New(filepath.Join(dir, pidName))
	if err != nil {
		return false
	}
	_, err = pid.GetOwner()
	return err == nil
}
