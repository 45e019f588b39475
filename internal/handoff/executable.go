package handoff

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Executable is the path that this process was started with, made absolute without following links, so that a restart
// runs what the link points to by then. The kernel's own answer names the old file, or "(deleted)" after an upgrade.
func Executable(argv0 string) (string, error) {
	if strings.ContainsRune(argv0, os.PathSeparator) {
		if !strings.HasPrefix(argv0, string(os.PathSeparator)) {
			wd, err := os.Getwd()
			if err != nil {
				return "", fmt.Errorf("handoff: path of the executable: %w", err)
			}
			argv0 = wd + string(os.PathSeparator) + argv0
		}
		return argv0, nil
	}
	path, err := lookPath(argv0)
	if err != nil {
		if path, err = os.Executable(); err != nil {
			return "", fmt.Errorf("handoff: path of the executable: %w", err)
		}
	}
	return path, nil
}

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
