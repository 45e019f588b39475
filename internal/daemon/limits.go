package daemon

import (
	"golang.org/x/sys/unix"

	"gateway/internal/config"
	"gateway/server/api"
)

// limits is what clients may take. Connections that left no descriptors would keep turns from running.
func (d *Daemon) limits() api.Limits {
	c := d.config().Limits
	l := api.Limits{Connections: c.Connections, PerAddress: c.ConnectionsPerAddress, Rate: c.RequestsPerSecond, Burst: c.Burst}
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) != nil {
		return l
	}
	if room := int(min(files.Cur, 1<<30) - min(config.ReservedFiles, files.Cur/2)); room < l.Connections {
		d.log.Warn().Int("connections", room).Any("open_files", files.Cur).
			Msg("fewer connections than limits.connections fit into the limit of open files. Try: ulimit -n, or LimitNOFILE= in the unit")
		l.Connections = room
	}
	return l
}
