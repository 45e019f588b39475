package daemon

import (
	"context"
	"fmt"
	"net"
	"time"

	"gateway/fsm"
	"gateway/server"
)

// open makes Running what its name says.
func (d *daemon) open(_ context.Context, e fsm.Entry) fsm.Outcome {
	d.queue.Load().Resume()
	d.takeBacklog()
	d.server.Resume(d.carried)
	d.carried = nil
	// No client waits any more: now comes what is for people.
	d.startEnded(e.Hop)
	if d.unclaimed {
		if err := d.claim(); err != nil {
			d.log.Warn().Err(err).Msg("the files that name this process are not up to date")
		}
	}
	if d.retired != nil {
		_ = d.retired.Close()
		d.retired = nil
	}
	scheme := "http"
	if d.config().TLS.On() {
		scheme = "https"
	}
	_, _ = fmt.Fprintf(d.Out, "gateway listens on %s://%s\nits state is kept in %s\n", scheme, d.listeningOn(), d.config().StateDir)
	return fsm.Outcome{}
}

// takeBacklog takes the connections that still wait at an address which is given up.
func (d *daemon) takeBacklog() {
	ln, ok := d.retired.(*net.TCPListener)
	if !ok || ln.SetDeadline(time.Now().Add(backlogTime)) != nil {
		return
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		d.carried = append(d.carried, server.Parked{Conn: nc, TLS: d.config().TLS.On()})
	}
}
