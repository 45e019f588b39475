package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caarlos0/env/v11"

	"gateway/fsm"
	"gateway/internal/advice"
)

const (
	envPrefix = "GATEWAY_"
	// fileLimit bounds the file, in bytes.
	fileLimit = 1 << 20
)

// own lists the variables of the gateway that are not keys of the configuration. One that ends in a star
// stands for all that begin so.
var own = []string{
	"GATEWAY_CONFIG", "GATEWAY_NO_RESPAWN", "GATEWAY_SUPERVISED", "GATEWAY_URL", "GATEWAY_TOKEN", "GATEWAY_SESSION",
	"GATEWAY_LANE", "GATEWAY_HANDOVER*", "GATEWAY_TURN_*", "GATEWAY_TEST_*",
}

// Source says where the configuration comes from.
type Source struct {
	// File must exist when it is given. Empty looks at GATEWAY_CONFIG, then for gateway.yaml in the user's
	// configuration folder, which may be missing.
	File string
	// Environ is as [os.Environ]; nil reads the process's own at each Load.
	Environ []string
	// Flags maps keys such as "log.level" to the text given on the command line.
	Flags map[string]string
}

// Loaded is a valid configuration.
type Loaded struct {
	Config Config
	// Certificate is the pair of Config.TLS as it was read; nil when there is none.
	Certificate *tls.Certificate
	// Tokens are those of Config.Auth, also what its files held, by the name of the client. That of auth.token has none.
	Tokens map[string]string
	// File is the path that was read; empty when there was none.
	File string
	// Origins maps the path of each key that is not at its default to where it comes from: "file:7",
	// "env:GATEWAY_LISTEN", "flag:--listen".
	Origins map[string]string
	places  map[string]string // line:column of each key of the file
}

// noRespawn is where lifecycle.respawn comes from when the variable has set it.
const noRespawn = "env:GATEWAY_NO_RESPAWN"

// NoRespawn reports whether GATEWAY_NO_RESPAWN=1 has made lifecycle.respawn in-process.
func (l *Loaded) NoRespawn() bool { return l.Origins["lifecycle.respawn"] == noRespawn }

// reading is a configuration that is being put together, with all that is wrong so far.
type reading struct {
	Loaded
	problems Problems
}

func newReading() *reading {
	return &reading{Loaded: Loaded{Config: Default(), Tokens: make(map[string]string), Origins: make(map[string]string), places: make(map[string]string)}}
}

// Load reads, merges and checks the configuration. The error lists everything that is wrong, as [Problems].
func Load(s Source) (Loaded, error) {
	environ := s.Environ
	if environ == nil {
		environ = os.Environ()
	}
	vars := env.ToMap(environ)
	r := newReading()
	if err := r.readFile(s.File, vars); err != nil {
		return Loaded{}, err
	}
	if err := r.readEnvironment(vars); err != nil {
		return Loaded{}, err
	}
	if err := r.readFlags(s.Flags); err != nil {
		return Loaded{}, err
	}
	r.resolvePaths()
	r.validate()
	r.readCertificate()
	r.readTokens()
	if len(r.problems) > 0 {
		return Loaded{}, r.problems
	}
	return r.Loaded, nil
}

// add notes a problem and where the key's value comes from.
func (r *reading) add(key, what, try string) {
	r.problems = append(r.problems, Problem{At: r.at(key), Key: key, What: what, Try: try})
}

// at is where the key, or what it is part of, was given; empty for a default.
func (l Loaded) at(key string) string {
	for {
		origin, given := strings.CutPrefix(l.Origins[key], "env:")
		if !given {
			origin, given = strings.CutPrefix(l.Origins[key], "flag:")
		}
		if given {
			return origin
		}
		if place, ok := l.places[key]; ok {
			return l.File + ":" + place
		}
		end := strings.LastIndexByte(key, '.')
		if end < 0 {
			return ""
		}
		key = key[:end]
	}
}

// validate adds what is wrong with the whole, but for keys whose value could not even be read.
func (r *reading) validate() {
	unread := r.problems
	for _, p := range r.Config.problems() {
		if !slices.ContainsFunc(unread, func(u Problem) bool { return u.Key != "" && (within(p.Key, u.Key) || within(u.Key, p.Key)) }) {
			r.add(p.Key, p.What, p.Try)
		}
	}
}

// within reports whether key is section or part of it.
func within(key, section string) bool {
	rest, ok := strings.CutPrefix(key, section)
	return ok && (rest == "" || rest[0] == '.')
}

func (r *reading) readFile(path string, vars map[string]string) error {
	optional := false
	if path == "" {
		path = vars["GATEWAY_CONFIG"]
	}
	if path == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil // no home, no file
		}
		path, optional = filepath.Join(dir, "gateway", "gateway.yaml"), true
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	f, err := os.Open(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return advice.Errorf("config: there is no file %s", path).Tryf("gateway config init %s", path)
	}
	if err != nil {
		return advice.Errorf("config: %w", err).Tryf("ls -l %s, for who may read it", path)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, fileLimit+1))
	if err != nil {
		return advice.Errorf("config: %w", err).Try("another file with --config")
	}
	if len(text) > fileLimit {
		return advice.Errorf("config: %s is larger than %s", path, Bytes(fileLimit)).Try("check that it is a configuration file")
	}
	r.File = path
	r.decode(text)
	return nil
}

func (r *reading) readEnvironment(vars map[string]string) error {
	known, err := keys()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		key, ok := known[name]
		switch {
		case ok:
			r.Origins[key] = "env:" + name
			r.set(name, key, vars[name])
		case !strings.HasPrefix(name, envPrefix), slices.ContainsFunc(own, func(o string) bool {
			head, all := strings.CutSuffix(o, "*")
			return name == o || (all && strings.HasPrefix(name, head))
		}):
		default:
			r.problems = append(r.problems, Problem{
				At: name, What: "no key of the configuration has this variable",
				Try: "unset " + name + ", or one of " + strings.Join(siblings(name, known), ", "),
			})
		}
	}
	if vars["GATEWAY_NO_RESPAWN"] == "1" {
		r.Config.Lifecycle.Respawn = fsm.ModeInPlace
		r.Origins["lifecycle.respawn"] = noRespawn
	}
	return nil
}

// siblings are the variables of the section that a misspelt one seems to mean.
func siblings(name string, known map[string]string) []string {
	section := ""
	for _, key := range known {
		if s, _, inner := strings.Cut(key, "."); inner && strings.HasPrefix(name, envPrefix+strings.ToUpper(s)+"_") {
			section = s + "."
		}
	}
	var names []string
	for variable, key := range known {
		if strings.HasPrefix(key, section) && !strings.Contains(key[len(section):], ".") {
			names = append(names, variable)
		}
	}
	slices.Sort(names)
	return names
}

func (r *reading) readFlags(flags map[string]string) error {
	known, err := keys()
	if err != nil {
		return err
	}
	for name, key := range known {
		if value, ok := flags[key]; ok {
			r.Origins[key] = "flag:--" + strings.ReplaceAll(strings.ReplaceAll(key, ".", "-"), "_", "-")
			r.set(name, key, value)
		}
	}
	return nil
}

// set parses the text of one variable into the configuration.
func (r *reading) set(name, key, text string) {
	err := env.ParseWithOptions(&r.Config, env.Options{Environment: map[string]string{name: text}, Prefix: envPrefix})
	if err == nil {
		return
	}
	var kind reflect.Type
	if all, ok := errors.AsType[env.AggregateError](err); ok {
		for _, one := range all.Errors {
			if parse, ok := errors.AsType[env.ParseError](one); ok {
				kind = parse.Type
			}
		}
	}
	want := expected(kind)
	r.add(key, strconv.Quote(text)+" is not "+want.what, want.try)
}

// keys maps the name of each variable to its key.
func keys() (map[string]string, error) {
	params, err := env.GetFieldParamsWithOptions(&Config{}, env.Options{Prefix: envPrefix})
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	known := make(map[string]string, len(params))
	for _, p := range params {
		key := strings.ToLower(strings.TrimPrefix(p.Key, envPrefix))
		for _, section := range []string{"auth", "log", "lifecycle", "turns", "tls", "limits"} {
			if rest, ok := strings.CutPrefix(key, section+"_"); ok {
				key = section + "." + rest
			}
		}
		known[p.Key] = key
	}
	return known, nil
}

// resolvePaths makes every path absolute: those of the file are relative to it.
func (r *reading) resolvePaths() {
	resolve := func(key, path string) string {
		var err error
		if path == "~" || strings.HasPrefix(path, "~/") {
			var home string
			if home, err = os.UserHomeDir(); err == nil {
				return filepath.Join(home, path[1:])
			}
		} else if !filepath.IsAbs(path) {
			if strings.HasPrefix(r.Origins[key], "file:") {
				path = filepath.Join(filepath.Dir(r.File), path)
			}
			path, err = filepath.Abs(path)
		}
		if err != nil {
			r.add(key, err.Error(), "write the path in full")
		}
		return path
	}
	if r.Config.StateDir != "" {
		r.Config.StateDir = resolve("state_dir", r.Config.StateDir)
	}
	if t := &r.Config.TLS; t.Cert != "" {
		t.Cert = resolve("tls.cert", t.Cert)
	}
	if t := &r.Config.TLS; t.Key != "" {
		t.Key = resolve("tls.key", t.Key)
	}
	if a := &r.Config.Auth; a.TokenFile != "" {
		a.TokenFile = resolve("auth.token_file", a.TokenFile)
	}
	for name, c := range r.Config.Auth.Clients {
		if c.TokenFile != "" {
			c.TokenFile = resolve("auth.clients."+name+".token_file", c.TokenFile)
		}
		r.Config.Auth.Clients[name] = c
	}
	for name, a := range r.Config.Agents {
		if a.Dir != "" {
			a.Dir = resolve("agents."+name+".dir", a.Dir)
		}
		r.Config.Agents[name] = a
	}
}

// StateDir finds the state folder without reading more than it must: the commands that talk to a running
// gateway have to find it while its file is broken.
func StateDir(s Source) (string, error) {
	environ := s.Environ
	if environ == nil {
		environ = os.Environ()
	}
	vars := env.ToMap(environ)
	r := newReading()
	switch flag, ok := s.Flags["state_dir"]; {
	case ok:
		r.Config.StateDir = flag
	case vars["GATEWAY_STATE_DIR"] != "":
		r.Config.StateDir = vars["GATEWAY_STATE_DIR"]
	default:
		if err := r.readFile(s.File, vars); err != nil {
			return "", err
		}
		r.problems = nil // of other keys
	}
	if r.Config.StateDir == "" {
		return "", Problems{noHome}
	}
	r.resolvePaths()
	for _, p := range r.problems {
		if p.Key == "state_dir" {
			return "", Problems{p}
		}
	}
	return r.Config.StateDir, nil
}
