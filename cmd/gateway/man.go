package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newManCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "man --dir DIR",
		Short: "Write the manual pages, one a command",
		Long: `Write the manual pages, one a command, into a folder, which is made when it is missing. Pages that are there are
replaced. The date in them is that of the sources, or SOURCE_DATE_EPOCH.`,
		Example: `  gateway man --dir ~/.local/share/man/man1 && man gateway-send
  gateway man --dir pages && man pages/gateway.1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usageError(errors.New("--dir is missing\nTry: gateway man --dir ~/.local/share/man/man1"))
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("writing the manual: %w\nTry: --dir with a folder that can be written to", err)
			}
			header := &doc.GenManHeader{Section: "1", Source: "gateway " + version(), Manual: "gateway"}
			if built := buildTime(); !built.IsZero() && os.Getenv("SOURCE_DATE_EPOCH") == "" {
				header.Date = &built
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			if err := doc.GenManTree(root, header, dir); err != nil {
				return fmt.Errorf("writing the manual: %w\nTry: --dir with a folder that can be written to", err)
			}
			pages, err := filepath.Glob(filepath.Join(dir, "gateway*.1"))
			if err != nil {
				return fmt.Errorf("listing the manual: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d pages in %s\n", len(pages), dir)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the folder, such as ~/.local/share/man/man1")
	completeFlag(cmd, "dir", completeFolders)
	return cmd
}
