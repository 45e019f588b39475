package main

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gateway/internal/advice"
)

// The manual pages are generated from the commands by `make generate`, and not at run time: the generator would slow
// down each start, and clients wait for the start of a restart.
//
//go:embed manual/*.1
var manual embed.FS

// Placeholders in the embedded pages for the version and its month.
const (
	manualVersion = "gateway VERSION"
	manualMonth   = "Jan 1970"
)

func newManCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "man --dir DIR",
		Short: "Write one manual page for each command",
		Long: `Write one manual page for each command into a folder, which is created when it is missing. Existing pages are
replaced. Their date is that of the sources, or SOURCE_DATE_EPOCH.`,
		Example: `  gateway man --dir ~/.local/share/man/man1 && man gateway-send
  gateway man --dir pages && man pages/gateway.1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usageError(advice.Errorf("--dir is missing").Try("gateway man --dir ~/.local/share/man/man1"))
			}
			pages, err := writeManual(dir)
			if err != nil {
				return advice.Errorf("writing the manual: %w", err).Try("--dir with a folder that can be written to")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d pages in %s\n", pages, dir)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the folder, such as ~/.local/share/man/man1")
	completeFlag(cmd, "dir", completeFolders)
	return cmd
}

// writeManual writes all pages, filled with this version, and returns their number.
func writeManual(dir string) (int, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	at := buildTime()
	if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		at = time.Unix(seconds, 0)
	}
	if at.IsZero() {
		at = time.Now()
	}
	fill := strings.NewReplacer(manualVersion, "gateway "+version(), manualMonth, at.UTC().Format("Jan 2006"))
	pages, err := manual.ReadDir("manual")
	if err != nil {
		return 0, err
	}
	for _, page := range pages {
		text, err := manual.ReadFile("manual/" + page.Name())
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(dir, page.Name()), []byte(fill.Replace(string(text))), 0o644); err != nil {
			return 0, err
		}
	}
	return len(pages), nil
}
