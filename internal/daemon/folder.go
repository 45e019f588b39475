package daemon

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"gateway/fsm"
	"gateway/internal/statedir"
)

// folder is the state folder.
type folder struct {
	lock    lock
	lockErr error                            // why the lock of the gateway before this one could not be taken over
	journal atomic.Pointer[statedir.Journal] // nil until the lock is taken: the folder may be another gateway's
	opening *storeOpening                    // nil when no store is being opened
	before  statedir.FailedStarts            // what counted against this start
}

// takeLock takes the lock, unless this process has it: from the gateway before it, or from the generation before.
func (d *Daemon) takeLock(_ context.Context, e fsm.Entry) error {
	dir, f := d.config().StateDir, &d.folder
	if f.lockErr != nil {
		return f.lockErr
	}
	if f.lock == nil {
		l, err := d.system.acquire(dir)
		if err != nil {
			return err
		}
		if err := d.tenure.keep(func() { f.lock = l }, func() { _ = l.Release() }); err != nil {
			return err
		}
	}
	if err := d.handover.move(lockTaken); err != nil || e.Hop.Generation > 0 {
		return err
	}
	journal := statedir.OpenJournal(dir)
	hops := d.machine.Hops(0)
	for i, h := range hops {
		// What this image did before, and the end of the one that it replaced: a predecessor that lives writes its own.
		last := i+1 < len(hops) && hops[i+1].BootID == d.bootID
		if h.BootID == d.bootID || h.Event == fsm.Respawned && last && d.handover.current() == owner {
			journal.Add(h)
		}
	}
	f.journal.Store(journal)
	return nil
}

// claim puts the name of this process to the state folder.
func (d *Daemon) claim() error {
	if err := d.folder.lock.Claim(); err != nil {
		return err
	}
	return d.folder.lock.Describe(statedir.Owner{PID: os.Getpid(), BootID: d.bootID, Address: d.listeningOn(), Since: time.Now()})
}
