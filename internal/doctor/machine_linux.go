package doctor

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// doubtfulFileSystem returns the kind of file system of a folder and its shortcoming; empty when none is known.
func doubtfulFileSystem(dir string) (kind, short string) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "", ""
	}
	of := int64(st.Type) //nolint:unconvert // the type is int32 on some systems
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
		return "overlayfs", "accepted turns are lost when the container is removed"
	}
	return "", ""
}

// whoListens finds the process that listens on a TCP port; pid is 0 when the process is not visible.
func whoListens(port string) (pid int, name string) {
	const listening = 10 // TCP_LISTEN
	number, err := strconv.ParseUint(port, 10, 16)
	fs, fsErr := procfs.NewDefaultFS()
	if err != nil || fsErr != nil {
		return 0, ""
	}
	sockets := make(map[string]bool) // link targets of their descriptors
	// The files are slow with very many connections, but they are read only once.
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

// openFilesOf returns how many files a process may have open.
func openFilesOf(pid int) (uint64, bool) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, false
	}
	limits, err := p.Limits()
	return limits.OpenFiles, err == nil
}
