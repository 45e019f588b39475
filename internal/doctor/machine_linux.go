package doctor

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// doubtfulFileSystem names the kind of file system that a folder is on and in what it falls short, empty when nothing
// is known against it.
func doubtfulFileSystem(dir string) (kind, short string) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "", ""
	}
	of := int64(st.Type) //nolint:unconvert // it is an int32 on some
	network := map[int64]string{
		unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "CIFS",
		unix.V9FS_MAGIC: "9P", unix.CEPH_SUPER_MAGIC: "Ceph", unix.AFS_SUPER_MAGIC: "AFS", unix.CODA_SUPER_MAGIC: "Coda",
	}
	passing := map[int64]string{unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs"}
	switch {
	case network[of] != "":
		return network[of], "file locks and the store's log are not safe there"
	case passing[of] != "":
		return passing[of], "accepted turns are lost when the machine loses power"
	case of == unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs", "what is accepted is gone with the container"
	}
	return "", ""
}

// whoListens finds the process that listens on a TCP port; pid is 0 when it cannot be seen.
func whoListens(port string) (pid int, name string) {
	const listening = 10 // TCP_LISTEN
	number, err := strconv.ParseUint(port, 10, 16)
	fs, fsErr := procfs.NewDefaultFS()
	if err != nil || fsErr != nil {
		return 0, ""
	}
	sockets := make(map[string]bool) // what a descriptor of one links to
	// The files are slow on a machine with very many connections, and this is asked once.
	four, _ := fs.NetTCP() //nolint:staticcheck // netlink would be one more library
	six, _ := fs.NetTCP6() //nolint:staticcheck // the same
	for _, line := range append(four, six...) {
		if line.St == listening && line.LocalPort == number {
			sockets[fmt.Sprintf("socket:[%d]", line.Inode)] = true
		}
	}
	all, _ := fs.AllProcs()
	for _, p := range all {
		targets, err := p.FileDescriptorTargets()
		if err != nil || !slices.ContainsFunc(targets, func(t string) bool { return sockets[t] }) {
			continue
		}
		name, _ := p.Comm()
		return p.PID, name
	}
	return 0, ""
}

// openFilesOf is how many files a process may have open.
func openFilesOf(pid int) (uint64, bool) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, false
	}
	limits, err := p.Limits()
	return limits.OpenFiles, err == nil
}
