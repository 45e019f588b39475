package daemon

import (
	"context"
	"fmt"
	"net"
	"time"

	"gateway/fsm"
	"gateway/server/carry"
)

// open makes Running what its name says.
func (d *Daemon) open(_ context.Context, e fsm.Entry) fsm.Outcome {
	in := &d.ingress
	d.current.Load().lanes.Resume()
	d.takeBacklog()
	in.front.Resume(in.carried)
	in.carried = nil
	// No client waits any more: now comes what is for people.
	d.startEnded(e.Hop)
	if d.handover.came != fresh && e.Hop.Generation == 0 { // the files name the gateway before this one
		if err := d.claim(); err != nil {
			d.log.Warn().Err(err).Msg("the files that name the owner of the state folder are not up to date")
		}
	}
	if in.retired != nil {
		_ = in.retired.Close()
		in.retired = nil
	}
	scheme := "http"
	if d.config().TLS.On() {
		scheme = "https"
	}
	_, _ = fmt.Fprintf(d.Out, "gateway listens on %s://%s\nits state is kept in %s\n", scheme, d.listeningOn(), d.config().StateDir)
	return fsm.Outcome{}
}

// takeBacklog takes the connections that still wait at an address which is given up.
func (d *Daemon) takeBacklog() {
	ln, ok := d.ingress.retired.(*net.TCPListener)
	if !ok || ln.SetDeadline(time.Now().Add(backlogTime)) != nil {
		return
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		d.ingress.carried = append(d.ingress.carried, carry.Connection{Conn: nc, TLS: d.config().TLS.On()})
	}
}
