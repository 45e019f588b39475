package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"gateway/internal/config"
)

// address opens the port for a moment when no gateway runs: nothing else shows whether a gateway could.
func (x *examination) address(ctx context.Context) {
	listen := x.config.Config.Listen
	if x.running != nil {
		x.add("address", OK, "the gateway listens on "+x.running.Address, "")
		// An address that is not in the file may be in the gateway's environment or flags.
		inFile := strings.HasPrefix(x.config.Origins["listen"], "file")
		if _, port, err := net.SplitHostPort(listen); inFile && err == nil && port != "0" && listen != x.running.Address && !strings.HasSuffix(x.running.Address, ":"+port) {
			x.add("address", Warning, "the configuration now has "+listen, "gateway restart")
		}
		return
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err == nil {
		_ = ln.Close()
		x.add("address", OK, listen+" is free", "")
		return
	}
	const elsewhere = "listen elsewhere: --listen 127.0.0.1:0"
	if !errors.Is(err, syscall.EADDRINUSE) {
		x.fault("address", Error, err, "an address of this machine, and a port above 1023, or "+elsewhere)
		return
	}
	_, port, _ := net.SplitHostPort(listen)
	switch pid, name := whoListens(port); {
	case pid == 1 && name == "systemd":
		x.add("address", OK, listen+" is held open by systemd for the gateway", "")
	case pid > 0:
		x.add("address", Error, fmt.Sprintf("%s is taken by process %d (%s)", listen, pid, name), fmt.Sprintf("end it: kill %d, or %s", pid, elsewhere))
	default:
		x.add("address", Error, listen+" is taken by another user's process", "find the process: sudo ss -ltnp, or "+elsewhere)
	}
}

// files checks how many files the gateway may have open, or could when it is run from here.
func (x *examination) files() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		x.fault("open files", Warning, err, "ulimit -n")
		return
	}
	soft, needed := uint64(limit.Cur), uint64(x.config.Config.Limits.Connections+config.ReservedFiles) //nolint:unconvert // the types differ from system to system
	who := "may be open"
	if x.running != nil {
		if its, ok := openFilesOf(x.running.PID); ok {
			soft, who = its, "may be open in the gateway"
		}
	}
	if soft < needed {
		x.add("open files", Warning, fmt.Sprintf("%d %s, limits.connections and the rest need %d", soft, who, needed), fmt.Sprintf("ulimit -n %d, or LimitNOFILE= in the unit", needed))
		return
	}
	x.add("open files", OK, fmt.Sprintf("%d %s", soft, who), "")
}
