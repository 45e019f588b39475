package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"gateway/fsm"
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
	require.Equal(t, fsm.ModeInPlace, l.Config.Lifecycle.Respawn)
	require.Equal(t, "flag:--listen", l.Origins["listen"])
	require.Equal(t, "env:GATEWAY_LOG_LEVEL", l.Origins["log.level"])
	require.Equal(t, "file:3", l.Origins["turns.max_attempts"])
	require.Equal(t, "env:GATEWAY_NO_RESPAWN", l.Origins["lifecycle.respawn"])
	require.True(t, l.NoRespawn())
}

func TestEveryMistakeHasAPlaceAndAWayOut(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"unknown key":       {"listen: 127.0.0.1:0\nlifecycel:\n  drain_timeout: 1s\n", "gateway.yaml:2:1: lifecycel: there is no such key"},
		"unknown inner key": {"lifecycle:\n  drain_timeuot: 1s\n", "gateway.yaml:2:3: lifecycle.drain_timeuot: there is no such key\nTry: allow_signal_restart, drain_timeout"},
		"unknown agent key": {"agents: { a: { type: echo, modl: x } }\n", "gateway.yaml:1:28: agents.a.modl: there is no such key"},
		"duplicate key":     {"listen: 127.0.0.1:0\nlisten: 127.0.0.1:1\n", "gateway.yaml:2:1:"},
		"broken YAML":       {"lanes: { main: \n", "gateway.yaml:1:"},
		"no unit":           {"lifecycle: { drain_timeout: 30 }\n", "gateway.yaml:1:29: lifecycle.drain_timeout: \"30\" is not a duration with a unit\nTry: a duration with a unit such as 30s"},
		"bad duration":      {"agents: { a: { type: echo, timeout: soon } }\n", "gateway.yaml:1:37: agents.a.timeout: \"soon\" is not a duration with a unit"},
		"list for text":     {"listen: [1,2]\n", "gateway.yaml:1:9: listen: text is expected, not a list"},
		"text for list":     {"agents: { a: { type: command, command: bc } }\n", "gateway.yaml:1:40: agents.a.command: a list is expected, not text\nTry:"},
		"list in a list":    {"agents: { a: { type: command, command: [bc, [-l]] } }\n", "gateway.yaml:1:45: agents.a.command: text is expected, not a list"},
		"keys for duration": {"lifecycle:\n  drain_timeout: { a: 1 }\n", "gateway.yaml:2:18: lifecycle.drain_timeout: a duration with a unit is expected, not keys with values"},
		"bad size":          {"turns: { max_input: big }\n", "gateway.yaml:1:21: turns.max_input: \"big\" is not a size"},
		"huge size":         {"turns: { max_input: 32MiB }\n", "gateway.yaml:1:21: turns.max_input: 32MiB is not between 1 and 16MiB"},
		"bad number":        {"lanes: { main: { concurrency: none } }\n", "gateway.yaml:1:31: lanes.main.concurrency: \"none\" is not a whole number"},
		"fraction":          {"turns: { max_attempts: 1.5 }\n", "gateway.yaml:1:24: turns.max_attempts: \"1.5\" is not a whole number"},
		"bad switch":        {"lifecycle: { allow_signal_restart: perhaps }\n", "gateway.yaml:1:36: lifecycle.allow_signal_restart: \"perhaps\" is not true or false"},
		"no anchor":         {"lanes: { main: *nothing }\n", "gateway.yaml:1:16: lanes.main: this alias has no anchor"},
		"two documents":     {"listen: 127.0.0.1:0\n---\nlisten: 127.0.0.1:1\n", "2 documents"},
		"no port":           {"listen: localhost\n", "gateway.yaml:1:9: listen: \"localhost\" is not host:port"},
		"bad port":          {"listen: localhost:http\n", "the port"},
		"open to the world": {"listen: 0.0.0.0:18789\n", "set auth.token or GATEWAY_AUTH_TOKEN, or listen on 127.0.0.1:18789"},
		"every interface":   {"listen: \":18789\"\n", "can be reached from other machines"},
		"a name":            {"listen: example.org:18789\n", "can be reached from other machines"},
		"short token":       {"auth: { token: x }\n", "gateway.yaml:1:16: auth.token: shorter than"},
		"zero deadline":     {"lifecycle: { drain_timeout: 0s }\n", "lifecycle.drain_timeout"},
		"unknown mode":      {"lifecycle: { respawn: fork }\n", "auto, exec, spawn, supervisor, in-process"},
		"other store":       {"store: postgres://localhost/x\n", "gateway.yaml:1:8: store:"},
		"no agent":          {"default_agent: claude\n", `gateway.yaml:1:16: default_agent: there is no agent "claude"`},
		"no program":        {"agents: { a: { type: command } }\n", "gateway.yaml:1:11: agents.a.command: no program is named"},
		"mixed agent":       {"agents: { a: { type: command, command: [bc], model: x } }\n", "gateway.yaml:1:11: agents.a: a command agent takes"},
		"no type":           {"agents: { a: { command: [bc] } }\n", "agents.a.type"},
		"no endpoint":       {"agents: { a: { type: openai, model: x } }\n", "agents.a.base_url"},
		"no variable":       {"agents: { a: { type: command, command: [bc], env: { \"A=B\": x } } }\n", "gateway.yaml:1:46: agents.a.env: this is not the name of a variable"},
		"bad name":          {"agents: { \"a b\": { type: echo } }\n", "gateway.yaml:1:11: agents.a b: \"a b\" is not a name"},
		"idle lane":         {"lanes: { main: { concurrency: 0 } }\n", "gateway.yaml:1:31: lanes.main.concurrency"},
		"short retention":   {"turns: { retention: 1s }\n", "gateway.yaml:1:21: turns.retention"},
		"no section":        {"lifecycle: 3\n", "gateway.yaml:1:12: lifecycle: keys with values are expected, not a number"},
		"a list":            {"- listen\n", "gateway.yaml:1:1: keys with values are expected, not a list"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "\nTry:")
			require.Equal(t, 1, strings.Count(err.Error(), "Try:"), err.Error())
			for _, word := range []string{"unmarshal", "interface {}", "uint64", "time.Duration", "Config."} {
				require.NotContains(t, err.Error(), word)
			}
		})
	}
}

func TestAMistakeShowsNoSecret(t *testing.T) {
	const secret = "correcthorse"
	for name, text := range map[string]string{
		"unknown key beside it":  "auth:\n  token: SECRET\n  tokn: x\n",
		"value of a list":        "auth:\n  token: [SECRET]\n",
		"value of keys":          "auth:\n  token: { SECRET: 1 }\n",
		"no colon":               "auth:\n  token \"SECRET\"\n",
		"no colon between keys":  "auth:\n  token SECRET\nlisten: 127.0.0.1:0\n",
		"no key":                 "auth: { SECRET }\n",
		"no key of a question":   "auth: { ? SECRET }\n",
		"no blank":               "auth:\n  token:SECRET\n",
		"two colons":             "auth:\n  token: a: SECRET\n",
		"unclosed quote":         "auth: { token: \"SECRET\n",
		"tab":                    "auth:\n\ttoken: SECRET\n",
		"twice":                  "auth:\n  token: SECRET\n  token: SECRET\n",
		"anchor":                 "auth:\n  token: &SECRET\nlisten: *SECRET2\n",
		"of an endpoint":         "agents: { a: { type: openai, api_key: SECRET, modl: x } }\n",
		"of an endpoint's list":  "agents: { a: { type: openai, api_key: [SECRET] } }\n",
		"in an address":          "agents: { a: { type: openai, model: m, base_url: \"ftp://me:SECRET@host/v1\" } }\n",
		"in the environment":     "agents: { a: { type: command, command: [bc], env: { K: SECRET, L: [SECRET] } } }\n",
		"environment as a list":  "agents: { a: { type: command, command: [bc], env: [K=SECRET] } }\n",
		"environment, no colon":  "agents: { a: { type: command, command: [bc], env: { K=SECRET } } }\n",
		"a mistake far from it":  "auth: { token: SECRET }\nlog: { level: loud }\n",
		"unfinished, next to it": "auth: { token: SECRET, \n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, strings.ReplaceAll(text, "SECRET", secret))
			require.ErrorContains(t, err, "gateway.yaml:")
			require.NotContains(t, err.Error(), secret)
		})
	}
}

func TestAnchorsAndMergeKeys(t *testing.T) {
	l, err := load(t, "lanes:\n  main: &few { concurrency: 2 }\n  mail: *few\n  post: { <<: *few }\n  more: { <<: [*few], concurrency: 9 }\n")
	require.NoError(t, err)
	require.Equal(t, map[string]Lane{"main": {2}, "mail": {2}, "post": {2}, "more": {9}, "cron": {1}, "subagent": {8}}, l.Config.Lanes)
}

func TestTextIsTakenAsItIsWritten(t *testing.T) {
	l, err := load(t, "auth: { token: 0123456789 }\nagents:\n  a:\n    type: openai\n    base_url: http://x/v1\n    model: 1.10\n    system: |\n      You are\n      brief.\nlifecycle:\n")
	require.NoError(t, err)
	require.Equal(t, "0123456789", l.Config.Auth.Token)
	require.Equal(t, "1.10", l.Config.Agents["a"].Model)
	require.Equal(t, "You are\nbrief.\n", l.Config.Agents["a"].System)
	require.Equal(t, Default().Lifecycle, l.Config.Lifecycle)
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	_, err := load(t, "listen: nowhere\nlog: { level: loud }\ndefault_agent: claude\nturns: { max_input: big, max_otput: 1 }\nlifecycle: { drain_timeout: 30 }\n",
		"GATEWAY_TURNS_MAX_ATTEMPTS=many", "GATEWAY_LISTN=x")
	require.ErrorContains(t, err, "config: 8 problems\n")
	for _, says := range []string{
		"gateway.yaml:1:9: listen:", "gateway.yaml:2:15: log.level:", "gateway.yaml:3:16: default_agent:", "gateway.yaml:4:21: turns.max_input:",
		"gateway.yaml:4:26: turns.max_otput:", "gateway.yaml:5:29: lifecycle.drain_timeout:",
		"\nGATEWAY_TURNS_MAX_ATTEMPTS: turns.max_attempts:", "\nGATEWAY_LISTN: ",
	} {
		require.ErrorContains(t, err, says)
	}
}

func TestATokenOpensTheGatewayToOthers(t *testing.T) {
	_, err := load(t, "listen: 0.0.0.0:18789\n", "GATEWAY_AUTH_TOKEN=0123456789abcdef")
	require.NoError(t, err)
}

func TestABadVariableIsNamed(t *testing.T) {
	for variable, says := range map[string]string{
		"GATEWAY_LISTN=127.0.0.1:0":          "config: GATEWAY_LISTN: no key of the configuration has this variable\nTry: unset GATEWAY_LISTN, or one of GATEWAY_DEFAULT_AGENT, GATEWAY_LISTEN,",
		"GATEWAY_LOG_LEVL=info":              "Try: unset GATEWAY_LOG_LEVL, or one of GATEWAY_LOG_FORMAT, GATEWAY_LOG_LEVEL",
		"GATEWAY_TURNS_MAX_ATTEMPTS=many":    "config: GATEWAY_TURNS_MAX_ATTEMPTS: turns.max_attempts: \"many\" is not a whole number\nTry: a whole number",
		"GATEWAY_LIFECYCLE_DRAIN_TIMEOUT=30": "config: GATEWAY_LIFECYCLE_DRAIN_TIMEOUT: lifecycle.drain_timeout: \"30\" is not a duration with a unit\nTry: a duration with a unit such as 30s",
		"GATEWAY_TURNS_MAX_INPUT=big":        "config: GATEWAY_TURNS_MAX_INPUT: turns.max_input: \"big\" is not a size\nTry: a size",
		"GATEWAY_LOG_LEVEL=loud":             "config: GATEWAY_LOG_LEVEL: log.level: \"loud\" is not a choice\nTry: trace,",
	} {
		_, err := load(t, "", variable)
		require.ErrorContains(t, err, says)
	}
	_, err := Load(Source{Environ: []string{"HOME=" + t.TempDir()}, Flags: map[string]string{"log.level": "loud"}})
	require.ErrorContains(t, err, "config: --log-level: log.level:")
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
	l, err := load(t, "auth: { token: very secret token }\nagents:\n  a: { type: command, command: [bc], env: { KEY: hush } }\n  b: { type: openai, base_url: 'http://u:pass-1@x/v1', model: m, api_key: sk-1 }\nlanes: { main: { concurrency: 2 } }\n")
	require.NoError(t, err)
	b, err := l.Show()
	require.NoError(t, err)
	for _, secret := range []string{"very secret", "hush", "sk-1", "pass-1"} {
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
	require.Error(t, b.UnmarshalText([]byte("99999PiB")))
	require.Error(t, b.UnmarshalText([]byte("-1")))
}

// pair writes a certificate and its key, and returns their paths.
func pair(t *testing.T, dir, name string, ends time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	about := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: ends, DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, &about, &about, private.Public(), private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}

func TestACertificateIsReadWithTheConfiguration(t *testing.T) {
	path := write(t, "tls: { cert: a.crt, key: a.key }\n")
	cert, key := pair(t, filepath.Dir(path), "a", time.Now().Add(time.Hour))
	l, err := Load(Source{File: path, Environ: []string{}})
	require.NoError(t, err)
	require.Equal(t, TLS{cert, key}, l.Config.TLS, "relative to the file")
	require.Equal(t, []string{"localhost"}, l.Certificate.Leaf.DNSNames)
	require.Empty(t, l.Warnings())

	l, err = Load(Source{File: write(t, ""), Environ: []string{"GATEWAY_TLS_CERT=" + cert, "GATEWAY_TLS_KEY=" + key}})
	require.NoError(t, err)
	require.True(t, l.Config.TLS.On())
	require.Equal(t, "env:GATEWAY_TLS_KEY", l.Origins["tls.key"])

	require.NoError(t, os.Chmod(key, 0o644))
	l, err = Load(Source{File: path, Environ: []string{}})
	require.NoError(t, err)
	require.ErrorContains(t, l.Warnings(), "gateway.yaml:1:26: tls.key: every user of this machine can open "+key+" (mode 0644)\nTry: chmod 600 "+key)

	_, _ = pair(t, filepath.Dir(path), "a", time.Unix(3600, 0))
	l, err = Load(Source{File: path, Environ: []string{}})
	require.NoError(t, err, "whether a client minds is the client's affair")
	require.Contains(t, l.Warnings().Error(), "the certificate expired on 1970-01-01")
}

func TestABadCertificateIsAMistakeWithAPlace(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, dir, "a", time.Now().Add(time.Hour))
	_, other := pair(t, dir, "b", time.Now().Add(time.Hour))
	empty, huge := filepath.Join(dir, "empty"), filepath.Join(dir, "huge")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	require.NoError(t, os.WriteFile(huge, make([]byte, pemLimit+1), 0o600))
	for text, says := range map[string]string{
		"tls: { cert: " + cert + " }\n":                        "gateway.yaml:1:1: tls.key: there is a certificate but no key",
		"tls: { key: " + key + " }\n":                          "gateway.yaml:1:1: tls.cert: there is a key but no certificate",
		"tls: { cert: none, key: " + key + " }\n":              "gateway.yaml:1:14: tls.cert: there is no file ",
		"tls: { cert: " + cert + ", key: " + other + " }\n":    "gateway.yaml:1:1: tls: " + cert + " and " + other + " are not a certificate and its key",
		"tls: { cert: " + key + ", key: " + key + " }\n":       "are not a certificate and its key",
		"tls: { cert: " + empty + ", key: " + key + " }\n":     "are not a certificate and its key",
		"tls: { cert: " + huge + ", key: " + key + " }\n":      "is larger than 1MiB",
		"tls: { cert: " + dir + ", key: " + key + " }\n":       "is not a file",
		"tls: { cert: " + cert + ", kee: x, key: " + key + "}": "tls.kee: there is no such key\nTry: cert, key",
		"limits: { connections: 0 }\n":                         "gateway.yaml:1:24: limits.connections: 0 is not between 1 and 1000000",
		"limits: { connections_per_address: -1 }\n":            "limits.connections_per_address: -1 is not between 0",
		"limits: { burst: 0 }\n":                               "limits.burst",
		"limits: { requests_per_second: many }\n":              "is not a whole number",
	} {
		_, err := load(t, text)
		require.ErrorContains(t, err, says)
		require.Equal(t, 1, strings.Count(err.Error(), "Try:"), err.Error())
	}
}

func TestATokenThatTravelsUnencryptedIsWarnedOf(t *testing.T) {
	l, err := load(t, "listen: 0.0.0.0:0\nauth: { token: long enough }\n")
	require.NoError(t, err)
	require.ErrorContains(t, l.Warnings(), "gateway.yaml:1:9: listen: 0.0.0.0:0 can be reached from other machines, and the token is sent unencrypted\nTry: tls:")
	cert, key := pair(t, t.TempDir(), "a", time.Now().Add(time.Hour))
	l, err = load(t, "listen: 0.0.0.0:0\nauth: { token: long enough }\ntls: { cert: "+cert+", key: "+key+" }\n")
	require.NoError(t, err)
	require.Empty(t, l.Warnings())
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:0\nlanes: { main: { concurrency: 2 } }\n"))
	f.Add(Template())
	f.Add([]byte("agents: &a { x: { type: echo } }\nlanes: *a\n"))
	f.Add([]byte("auth: { token_file: t, clients: { ci: { token: long enough, scopes: [read, admin] }, scopes: { token_file: u, scopes: [write] } } }\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newReading()
		r.File = "f"
		r.decode(text)
		r.validate()
		if len(r.problems) == 0 {
			_, err := r.Show()
			require.NoError(t, err)
		}
	})
}

func TestADrainThatLeavesASuccessorNoTimeIsWarnedOf(t *testing.T) {
	for text, want := range map[string]string{
		"lifecycle: { drain_timeout: 400ms }":                      "gateway.yaml:1:29: lifecycle.drain_timeout: a successor has only 300ms",
		"lifecycle: { respawn_timeout: 100ms }":                    "lifecycle.respawn_timeout: a successor has only 100ms",
		"lifecycle: { drain_timeout: 1s, respawn_timeout: 750ms }": "",
	} {
		l, err := load(t, text)
		require.NoError(t, err)
		if want == "" {
			require.Empty(t, l.Warnings())
			continue
		}
		require.ErrorContains(t, l.Warnings(), want)
		require.ErrorContains(t, l.Warnings(), "Try: 1s or more")
	}
}

func TestTheDurationsOfTheStatesComeFromTheTable(t *testing.T) {
	c := Default()
	require.Equal(t, fsm.Defaults(), c.Lifecycle.Timeouts())
}
