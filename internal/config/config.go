// Package config reads the configuration: defaults < file < environment < flags, checked as one.
//
// The invariant: what Load returns is valid as a whole, and every value knows where it comes from.
package config

import (
	"os"
	"path/filepath"
	"time"

	"gateway/fsm"
)

// Config is the whole configuration. The zero value is not valid; start from [Default].
type Config struct {
	// Listen is the TCP address, host:port. Port 0 lets the system choose.
	Listen string `yaml:"listen" env:"LISTEN"`
	// StateDir is an absolute path once loaded.
	StateDir string `yaml:"state_dir" env:"STATE_DIR"`
	// Store is "sqlite": one file in the state folder.
	Store     string    `yaml:"store" env:"STORE"`
	Auth      Auth      `yaml:"auth" envPrefix:"AUTH_"`
	TLS       TLS       `yaml:"tls" envPrefix:"TLS_"`
	Limits    Limits    `yaml:"limits" envPrefix:"LIMITS_"`
	Log       Log       `yaml:"log" envPrefix:"LOG_"`
	Lifecycle Lifecycle `yaml:"lifecycle" envPrefix:"LIFECYCLE_"`
	// Lanes by name; those of the file are added to the default ones.
	Lanes map[string]Lane `yaml:"lanes"`
	Turns Turns           `yaml:"turns" envPrefix:"TURNS_"`
	// DefaultAgent runs the turns that name none.
	DefaultAgent string `yaml:"default_agent" env:"DEFAULT_AGENT"`
	// Agents by name; those of the file are added to the default one.
	Agents map[string]Agent `yaml:"agents"`
}

// Limits bounds what clients of the TCP listener take. The control socket has none of these.
type Limits struct {
	// Connections is how many may be open at once; the system's limit of open files may make it less.
	Connections int `yaml:"connections" env:"CONNECTIONS"`
	// ConnectionsPerAddress is how many of them one address may have, or one /64 network of IPv6; 0 for as many
	// as there are.
	ConnectionsPerAddress int `yaml:"connections_per_address" env:"CONNECTIONS_PER_ADDRESS"`
	// RequestsPerSecond is what one client may ask on average; 0 for as much as it likes. Burst is how many
	// requests it may make at once.
	RequestsPerSecond int `yaml:"requests_per_second" env:"REQUESTS_PER_SECOND"`
	Burst             int `yaml:"burst" env:"BURST"`
}

// ReservedFiles is how many descriptors clients leave to the store, the agents and their programs.
const ReservedFiles = 256

// Log says how much is logged and how it looks.
type Log struct {
	Level  string `yaml:"level" env:"LEVEL"`   // trace, debug, info, warn or error
	Format string `yaml:"format" env:"FORMAT"` // console, json, or auto: console at a terminal
}

// Lifecycle holds the deadlines of the states, and how a restart hands over.
type Lifecycle struct {
	StartTimeout    time.Duration `yaml:"start_timeout" env:"START_TIMEOUT"`
	DrainTimeout    time.Duration `yaml:"drain_timeout" env:"DRAIN_TIMEOUT"`
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" env:"SHUTDOWN_TIMEOUT"`
	RespawnTimeout  time.Duration `yaml:"respawn_timeout" env:"RESPAWN_TIMEOUT"`
	// Respawn is one of [fsm.Modes]. GATEWAY_NO_RESPAWN=1 makes it in-process.
	Respawn fsm.Mode `yaml:"respawn" env:"RESPAWN"`
	// AllowSignalRestart lets SIGUSR1 restart without an authorisation.
	AllowSignalRestart bool `yaml:"allow_signal_restart" env:"ALLOW_SIGNAL_RESTART"`
}

// Timeouts are the durations of the states.
func (l *Lifecycle) Timeouts() fsm.Timeouts {
	return fsm.Timeouts{
		fsm.StartTimeout: l.StartTimeout, fsm.DrainTimeout: l.DrainTimeout,
		fsm.ShutdownTimeout: l.ShutdownTimeout, fsm.RespawnTimeout: l.RespawnTimeout,
	}
}

// PrepareTimeout is how long a successor has to say that it could take over: shorter than any drain, so that one that
// hangs is noticed before anything is torn down.
func (l *Lifecycle) PrepareTimeout() time.Duration { return min(l.RespawnTimeout, l.DrainTimeout*3/4) }

// Lane caps how many of its sessions run at once.
type Lane struct {
	Concurrency int `yaml:"concurrency"`
}

// Turns limits what is accepted and says how interruptions count.
type Turns struct {
	// MaxAttempts is how many attempts, crashes included, a turn gets.
	MaxAttempts int `yaml:"max_attempts" env:"MAX_ATTEMPTS"`
	// RetryBackoff is how long a turn waits after its first attempt failed for a reason that may go away; it
	// doubles with every further one, up to a minute.
	RetryBackoff time.Duration `yaml:"retry_backoff" env:"RETRY_BACKOFF"`
	// OnInterrupt is retry or fail.
	OnInterrupt         string `yaml:"on_interrupt" env:"ON_INTERRUPT"`
	MaxQueued           int    `yaml:"max_queued" env:"MAX_QUEUED"`
	MaxQueuedPerSession int    `yaml:"max_queued_per_session" env:"MAX_QUEUED_PER_SESSION"`
	MaxInput            Bytes  `yaml:"max_input" env:"MAX_INPUT"`
	MaxOutput           Bytes  `yaml:"max_output" env:"MAX_OUTPUT"`
	// Retention is how long finished turns and idempotency keys are kept.
	Retention time.Duration `yaml:"retention" env:"RETENTION"`
}

// Agent is what runs a turn.
type Agent struct {
	// Type is echo, command or openai.
	Type string `yaml:"type"`
	// Timeout bounds an attempt; 0 means [DefaultAgentTimeout]. It does not apply to echo.
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// Mode is what a turn does when others of its session wait or run: followup, collect or interrupt; empty
	// means followup. A session or a request may say otherwise.
	Mode string `yaml:"mode,omitempty"`

	// Command is the program and its arguments, without a shell. An argument with {input} gets the input
	// in its place; without one the input goes to standard input.
	Command []string `yaml:"command,omitempty,flow"`
	// Dir is the working folder; empty means the gateway's own. Relative to the file's folder.
	Dir string            `yaml:"dir,omitempty"`
	Env map[string]string `yaml:"env,omitempty"`

	// BaseURL is an OpenAI-compatible endpoint, up to and including /v1.
	BaseURL string `yaml:"base_url,omitempty"`
	Model   string `yaml:"model,omitempty"`
	APIKey  string `yaml:"api_key,omitempty"`
	// System is the system message that begins every conversation; empty for none.
	System string `yaml:"system,omitempty"`
}

// DefaultAgentTimeout bounds an attempt of an agent that does not say.
const DefaultAgentTimeout = 30 * time.Minute

// Default is the configuration of an empty file.
func Default() Config {
	defaults := fsm.Defaults()
	return Config{
		Listen:   "127.0.0.1:18789",
		StateDir: defaultStateDir(),
		Store:    "sqlite",
		Limits:   Limits{Connections: 10_000, ConnectionsPerAddress: 1000, Burst: 100},
		Log:      Log{Level: "info", Format: "auto"},
		Lifecycle: Lifecycle{
			StartTimeout: defaults[fsm.StartTimeout], DrainTimeout: defaults[fsm.DrainTimeout],
			ShutdownTimeout: defaults[fsm.ShutdownTimeout], RespawnTimeout: defaults[fsm.RespawnTimeout],
			Respawn: fsm.ModeAuto,
		},
		Lanes: map[string]Lane{"main": {4}, "cron": {1}, "subagent": {8}},
		Turns: Turns{
			MaxAttempts: 3, RetryBackoff: time.Second, OnInterrupt: "retry", MaxQueued: 100_000, MaxQueuedPerSession: 1000,
			MaxInput: 1 << 20, MaxOutput: 8 << 20, Retention: 168 * time.Hour,
		},
		DefaultAgent: "echo",
		Agents:       map[string]Agent{"echo": {Type: "echo"}},
	}
}

// defaultStateDir follows the XDG base directory specification.
func defaultStateDir() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "gateway")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "" // Validate says what to do
	}
	return filepath.Join(home, ".local", "state", "gateway")
}
