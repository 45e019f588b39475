package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gateway/internal/advice"
	"gateway/internal/config"
	"gateway/internal/statedir"
	"gateway/internal/terminal"
	"gateway/queue"
)

func newBackupCommand(o *options) *cobra.Command {
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the store to a file, also while the gateway runs",
		Long: `Copy the store, with every turn that was acknowledged before the copy, to a file. The gateway keeps running.
The file appears when the copy is complete, checked and on disk.

To restore: gateway stop, replace gateway.db in the state folder by the file, gateway run.`,
		Example: `  gateway backup /var/backups/gateway-$(date +%F).db
  gateway backup --force copy.db`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := config.StateDir(o.source())
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			showing, stopShowing := context.WithCancel(ctx)
			wait := copyProgress(showing, terminal.NewProgress(cmd.ErrOrStderr()), filepath.Join(dir, statedir.StoreFile), queue.BackupPart(args[0]))
			turns, err := queue.Backup(ctx, filepath.Join(dir, statedir.StoreFile), args[0], force)
			stopShowing()
			wait()
			if err != nil {
				return err
			}
			st, err := os.Stat(args[0])
			if err != nil {
				return advice.Errorf("the backup: %w", err).Try("again")
			}
			return report(cmd, asJSON, map[string]any{"file": args[0], "turns": turns, "bytes": st.Size()},
				"%d turns, %d bytes in %s", turns, st.Size(), args[0])
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// copyProgress shows how much of a file has been copied, until ctx ends. wait returns after the last update.
func copyProgress(ctx context.Context, p *terminal.Progress, from, to string) (wait func()) {
	if !p.Visible() {
		return func() {}
	}
	var showing sync.WaitGroup
	showing.Go(func() {
		defer p.End()
		for pause(ctx, 100*time.Millisecond) {
			whole, err := os.Stat(from)
			part, errPart := os.Stat(to)
			if err == nil && errPart == nil {
				p.Show(copied(part.Size(), whole.Size()))
			}
		}
	})
	return showing.Wait
}

// copied is the text of the progress. A copy has no gaps, so a complete copy may be smaller than the store.
func copied(part, whole int64) string {
	return fmt.Sprintf("copying: %s of %s, %d%%", humanize.IBytes(uint64(part)), humanize.IBytes(uint64(whole)), min(100, 100*part/max(whole, 1)))
}
