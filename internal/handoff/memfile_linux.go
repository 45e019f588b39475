package handoff

import (
	"os"

	"golang.org/x/sys/unix"
)

// memoryFile is an anonymous file that a full disk cannot refuse.
func memoryFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("gateway-handover", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "gateway-handover"), nil
}
