package daemon

import (
	"github.com/rs/zerolog"

	"gateway/fsm"
	"gateway/internal/config"
	"gateway/internal/handoff"
)

// generation is what a restart in this process replaces. It does not change: whoever has something new publishes a copy.
type generation struct {
	loaded config.Loaded // the configuration in force
	mode   fsm.Mode      // how the next restart hands over
	why    string        // why by that mode
	// lanes and agents are those of the generation before until the store is open again, nil before the first time.
	lanes  lanes
	agents agents
}

func (d *Daemon) config() *config.Config { return &d.current.Load().loaded.Config }

// use puts a configuration in force.
func (d *Daemon) use(loaded config.Loaded) {
	around := handoff.Look()
	around.TLS, around.NoRespawn = loaded.Config.TLS.On(), loaded.NoRespawn()
	g := generation{loaded: loaded}
	g.mode, g.why = around.Choose(loaded.Config.Lifecycle.Respawn)
	if before := d.current.Load(); before != nil {
		g.lanes, g.agents = before.lanes, before.agents
	}
	d.current.Store(&g)
	if level, err := zerolog.ParseLevel(loaded.Config.Log.Level); err == nil {
		zerolog.SetGlobalLevel(level)
	}
}
