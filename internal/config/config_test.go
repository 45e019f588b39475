package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func load(t *testing.T, text string, environ ...string) (Loaded, error) {
	t.Helper()
	return Load(Source{File: write(t, text), Environ: append(environ, "HOME="+t.TempDir())})
}

func TestWhatSaysNothingKeepsEveryDefault(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing\n\n# at all\n", "document mark": "---\n", "template": string(Template()),
	} {
		l, err := load(t, text)
		require.NoError(t, err, name)
		require.Equal(t, Default(), l.Config, name)
		require.Empty(t, l.Origins, name)
	}
}

func TestTheTemplateSaysTheDefaults(t *testing.T) {
	var lines []string
	for line := range strings.Lines(string(Template())) {
		if body, ok := strings.CutPrefix(line, "# "); ok && (strings.Contains(body, ":") && !strings.HasPrefix(body, "The ") && !strings.Contains(body, " for example ")) {
			lines = append(lines, body)
		}
		if strings.HasPrefix(line, "#   echo: {") {
			break
		}
	}
	l, err := load(t, strings.Join(lines, ""), "XDG_STATE_HOME=")
	require.NoError(t, err)
	want := Default()
	want.StateDir = l.Config.StateDir
	require.Equal(t, want, l.Config)
}

func TestASectionKeepsWhatItDoesNotName(t *testing.T) {
	l, err := load(t, "lifecycle: { drain_timeout: 1s }\nturns:\n  max_input: 2MiB\nlanes: { main: { concurrency: 2 }, mail: { concurrency: 3 } }\nagents: { sum: { type: command, command: [bc] } }\n")
	require.NoError(t, err)
	want := Default()
	want.Lifecycle.DrainTimeout = time.Second
	want.Turns.MaxInput = 2 << 20
	want.Lanes["main"], want.Lanes["mail"] = Lane{2}, Lane{3}
	want.Agents["sum"] = Agent{Type: "command", Command: []string{"bc"}}
	require.Equal(t, want, l.Config)
	require.Equal(t, "file:1", l.Origins["lifecycle.drain_timeout"])
	require.Equal(t, "file:3", l.Origins["turns.max_input"])
	require.Equal(t, "file:4", l.Origins["lanes.mail.concurrency"])
}

func TestFlagsOverrideTheEnvironmentAndThatTheFile(t *testing.T) {
	path := write(t, "listen: 127.0.0.1:1\nlog: { level: debug }\nturns: { max_attempts: 7 }\n")
	l, err := Load(Source{
		File: path, Flags: map[string]string{"listen": "127.0.0.1:3"},
		Environ: []string{
			"GATEWAY_LISTEN=127.0.0.1:2", "GATEWAY_LOG_LEVEL=warn", "GATEWAY_LIFECYCLE_DRAIN_TIMEOUT=2s", "GATEWAY_TURNS_MAX_INPUT=64KiB",
			"GATEWAY_AUTH_TOKEN=long enough", "GATEWAY_NO_RESPAWN=1", "GATEWAY_TURN_ID=x",
		},
	})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:3", l.Config.Listen)
	require.Equal(t, "warn", l.Config.Log.Level)
	require.Equal(t, 7, l.Config.Turns.MaxAttempts)
	require.Equal(t, 2*time.Second, l.Config.Lifecycle.DrainTimeout)
	require.Equal(t, Bytes(64<<10), l.Config.Turns.MaxInput)
	require.Equal(t, "in-process", l.Config.Lifecycle.Respawn)
	require.Equal(t, "flag:--listen", l.Origins["listen"])
	require.Equal(t, "env:GATEWAY_LOG_LEVEL", l.Origins["log.level"])
	require.Equal(t, "file:3", l.Origins["turns.max_attempts"])
	require.Equal(t, "env:GATEWAY_NO_RESPAWN", l.Origins["lifecycle.respawn"])
}

func TestEveryMistakeHasAPlaceAndAWayOut(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"unknown key":       {"listen: 127.0.0.1:0\nlifecycel:\n  drain_timeout: 1s\n", `gateway.yaml:2:1: unknown field "lifecycel"`},
		"unknown inner key": {"lifecycle:\n  drain_timeuot: 1s\n", `gateway.yaml:2:3: unknown field "drain_timeuot"`},
		"caret":             {"lifecycle:\n  drain_timeuot: 1s\n", "^"},
		"duplicate key":     {"listen: 127.0.0.1:0\nlisten: 127.0.0.1:1\n", "gateway.yaml:2:1:"},
		"broken YAML":       {"lanes: { main: \n", "gateway.yaml:1:"},
		"bad duration":      {"lifecycle: { drain_timeout: soon }\n", "gateway.yaml:1:"},
		"bad size":          {"turns: { max_input: big }\n", "is not a size"},
		"bad number":        {"lanes: { main: { concurrency: none } }\n", "gateway.yaml:1:"},
		"two documents":     {"listen: 127.0.0.1:0\n---\nlisten: 127.0.0.1:1\n", "2 documents"},
		"no port":           {"listen: localhost\n", "is not host:port"},
		"bad port":          {"listen: localhost:http\n", "the port"},
		"open to the world": {"listen: 0.0.0.0:18789\n", "set auth.token or GATEWAY_AUTH_TOKEN, or listen on 127.0.0.1:18789"},
		"every interface":   {"listen: \":18789\"\n", "can be reached from other machines"},
		"a name":            {"listen: example.org:18789\n", "can be reached from other machines"},
		"short token":       {"auth: { token: x }\n", "auth.token: shorter than"},
		"zero deadline":     {"lifecycle: { drain_timeout: 0s }\n", "lifecycle.drain_timeout"},
		"unknown mode":      {"lifecycle: { respawn: fork }\n", "auto, exec, spawn, supervisor, in-process"},
		"other store":       {"store: postgres://localhost/x\n", "store:"},
		"no agent":          {"default_agent: claude\n", `there is no agent "claude"`},
		"no program":        {"agents: { a: { type: command } }\n", "agents.a.command"},
		"mixed agent":       {"agents: { a: { type: command, command: [bc], model: x } }\n", "agents.a"},
		"no type":           {"agents: { a: { command: [bc] } }\n", "agents.a.type"},
		"no endpoint":       {"agents: { a: { type: openai, model: x } }\n", "agents.a.base_url"},
		"bad name":          {"agents: { \"a b\": { type: echo } }\n", "is not a name"},
		"idle lane":         {"lanes: { main: { concurrency: 0 } }\n", "lanes.main.concurrency"},
		"short retention":   {"turns: { retention: 1s }\n", "turns.retention"},
		"no section":        {"lifecycle: 3\n", "gateway.yaml:1:"},
		"a list":            {"- listen\n", "gateway.yaml:1:"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "Try:")
		})
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	_, err := load(t, "listen: nowhere\nlog: { level: loud }\ndefault_agent: claude\n")
	for _, key := range []string{"listen:", "log.level:", "default_agent:"} {
		require.ErrorContains(t, err, key)
	}
}

func TestATokenOpensTheGatewayToOthers(t *testing.T) {
	_, err := load(t, "listen: 0.0.0.0:18789\n", "GATEWAY_AUTH_TOKEN=0123456789abcdef")
	require.NoError(t, err)
}

func TestAMisspeltVariableIsRefused(t *testing.T) {
	_, err := load(t, "", "GATEWAY_LISTN=127.0.0.1:0")
	require.ErrorContains(t, err, "GATEWAY_LISTN")
	_, err = load(t, "", "GATEWAY_TURNS_MAX_ATTEMPTS=many")
	require.ErrorContains(t, err, "Try:")
}

func TestAFileThatIsNamedMustExist(t *testing.T) {
	_, err := Load(Source{File: filepath.Join(t.TempDir(), "gone.yaml"), Environ: []string{}})
	require.ErrorContains(t, err, "Try: gateway config init")
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	l, err := Load(Source{Environ: []string{}})
	require.NoError(t, err)
	require.Empty(t, l.File)
	_, err = load(t, strings.Repeat("#", fileLimit+1))
	require.ErrorContains(t, err, "larger than 1MiB")
}

func TestPathsOfTheFileAreRelativeToIt(t *testing.T) {
	path := write(t, "state_dir: state\nagents: { a: { type: command, command: [bc], dir: work } }\n")
	l, err := Load(Source{File: path, Environ: []string{}})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(filepath.Dir(path), "state"), l.Config.StateDir)
	require.Equal(t, filepath.Join(filepath.Dir(path), "work"), l.Config.Agents["a"].Dir)
	home, err := os.UserHomeDir()
	require.NoError(t, err)
	l, err = load(t, "state_dir: ~/gateway\n")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(home, "gateway"), l.Config.StateDir)
}

func TestShowHidesSecretsAndNamesOrigins(t *testing.T) {
	l, err := load(t, "auth: { token: very secret token }\nagents:\n  a: { type: command, command: [bc], env: { KEY: hush } }\n  b: { type: openai, base_url: http://x/v1, model: m, api_key: sk-1 }\nlanes: { main: { concurrency: 2 } }\n")
	require.NoError(t, err)
	b, err := l.Show()
	require.NoError(t, err)
	for _, secret := range []string{"very secret", "hush", "sk-1"} {
		require.NotContains(t, string(b), secret)
	}
	require.Contains(t, string(b), "concurrency: 2 # file:5")
	var again Config
	require.NoError(t, yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&again))
	require.Equal(t, "very secret token", l.Config.Auth.Token, "the configuration itself is not touched")
}

func TestSizesReadAndWriteTheSame(t *testing.T) {
	for text, want := range map[string]Bytes{"1MiB": 1 << 20, "1MB": 1e6, "1536": 1536, "2KiB": 2048, "0": 0} {
		var b, again Bytes
		require.NoError(t, b.UnmarshalText([]byte(text)))
		require.Equal(t, want, b)
		require.NoError(t, again.UnmarshalText([]byte(b.String())))
		require.Equal(t, b, again)
	}
	var b Bytes
	require.Error(t, b.UnmarshalText([]byte("99999TiB")))
	require.Error(t, b.UnmarshalText([]byte("-1")))
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:0\nlanes: { main: { concurrency: 2 } }\n"))
	f.Add(Template())
	f.Add([]byte("agents: &a { x: { type: echo } }\nlanes: *a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l := Loaded{Config: Default(), Origins: make(map[string]string)}
		if l.decode("f", text) == nil {
			if l.Config.Validate() == nil {
				_, err := l.Show()
				require.NoError(t, err)
			}
		}
	})
}
