//go:build !linux

package handoff

import "os"

// memoryFile is an unlinked temporary file.
func memoryFile() (*os.File, error) {
	f, err := os.CreateTemp("", "gateway-handover-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
