package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
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
	// File is the path that was read; empty when there was none.
	File string
	// Origins maps the path of each key that is not at its default to where it comes from: "file:7",
	// "env:GATEWAY_LISTEN", "flag:--listen".
	Origins map[string]string
}

// Load reads, merges and checks the configuration. The error lists everything that is wrong, each with
// what to try.
func Load(s Source) (Loaded, error) {
	environ := s.Environ
	if environ == nil {
		environ = os.Environ()
	}
	vars := env.ToMap(environ)
	l := Loaded{Config: Default(), Origins: make(map[string]string)}
	if err := l.readFile(s.File, vars); err != nil {
		return Loaded{}, err
	}
	if err := l.readEnvironment(vars); err != nil {
		return Loaded{}, err
	}
	if err := l.readFlags(s.Flags); err != nil {
		return Loaded{}, err
	}
	if err := l.resolvePaths(); err != nil {
		return Loaded{}, err
	}
	if err := l.Config.Validate(); err != nil {
		if l.File != "" {
			return Loaded{}, fmt.Errorf("%s: %w", l.File, err)
		}
		return Loaded{}, err
	}
	return l, nil
}

func (l *Loaded) readFile(path string, vars map[string]string) error {
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
	if err != nil {
		return fmt.Errorf("config: %w\nTry: gateway config init %s", err, path)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, fileLimit+1))
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if len(text) > fileLimit {
		return fmt.Errorf("config: %s is larger than %s\nTry: check that it is a configuration file", path, Bytes(fileLimit))
	}
	l.File = path
	return l.decode(path, text)
}

// decode merges a file over the defaults.
func (l *Loaded) decode(path string, text []byte) error {
	c := l.Config
	c.Lanes, c.Agents = nil, nil
	err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&c)
	if errors.Is(err, io.EOF) {
		return nil // empty, or nothing but comments: the decoder has zeroed c
	}
	if err != nil {
		return fileError(path, text, err)
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return fileError(path, text, err)
	}
	if len(file.Docs) > 1 {
		return fmt.Errorf("config: %s holds %d documents\nTry: keep one", path, len(file.Docs))
	}
	for _, doc := range file.Docs {
		l.origins("", doc.Body)
	}
	lanes, agents := l.Config.Lanes, l.Config.Agents
	maps.Copy(lanes, c.Lanes)
	maps.Copy(agents, c.Agents)
	c.Lanes, c.Agents = lanes, agents
	l.Config = c
	return nil
}

// fileError shows the place: file, line, column, and the lines around it with a caret.
func fileError(path string, text []byte, err error) error {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil {
		if line, key := badDuration(text); key != "" {
			return fmt.Errorf("config: %s:%d: %s: %w\nTry: a duration such as 500ms, 30s or 1h30m", path, line, key, err)
		}
		return fmt.Errorf("config: %s: %w\nTry: gateway config init, for a commented example", path, err)
	}
	pos := at.GetToken().Position
	_, excerpt, _ := strings.Cut(at.FormatError(false, true), "\n")
	return fmt.Errorf("config: %s:%d:%d: %s\n%s\nTry: gateway config init, for a commented example of every key",
		path, pos.Line, pos.Column, at.GetMessage(), strings.TrimRight(excerpt, "\n"))
}

// badDuration finds the key whose value is no duration: that error of the decoder has no position.
func badDuration(text []byte) (line int, key string) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return 0, ""
	}
	for _, doc := range file.Docs {
		for _, n := range ast.Filter(ast.MappingValueType, doc) {
			v, ok := n.(*ast.MappingValueNode)
			if !ok {
				continue
			}
			name := v.Key.GetToken().Value
			if !strings.HasSuffix(name, "timeout") && name != "retention" {
				continue
			}
			if _, err := time.ParseDuration(v.Value.GetToken().Value); err != nil {
				return v.Value.GetToken().Position.Line, name
			}
		}
	}
	return 0, ""
}

// origins notes the line of every leaf of the file.
func (l *Loaded) origins(path string, n ast.Node) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		if path != "" {
			l.Origins[path] = "file:" + strconv.Itoa(n.GetToken().Position.Line)
		}
		return
	}
	for _, v := range values {
		key := v.Key.GetToken().Value
		if path != "" {
			key = path + "." + key
		}
		l.origins(key, v.Value)
	}
}

func (l *Loaded) readEnvironment(vars map[string]string) error {
	known, err := keys()
	if err != nil {
		return err
	}
	given := make(map[string]string)
	var unknown []string
	for name, value := range vars {
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		if key, ok := known[name]; ok {
			given[name] = value
			l.Origins[key] = "env:" + name
		} else if !slices.ContainsFunc(own, func(o string) bool {
			head, all := strings.CutSuffix(o, "*")
			return name == o || (all && strings.HasPrefix(name, head))
		}) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("config: the environment sets %s, which is no key of the configuration\nTry: gateway config show, for the keys; GATEWAY_ and the path in upper case is the variable", strings.Join(unknown, ", "))
	}
	if err := l.set(given); err != nil {
		return err
	}
	if vars["GATEWAY_NO_RESPAWN"] == "1" {
		l.Config.Lifecycle.Respawn = "in-process"
		l.Origins["lifecycle.respawn"] = "env:GATEWAY_NO_RESPAWN"
	}
	return nil
}

func (l *Loaded) readFlags(flags map[string]string) error {
	known, err := keys()
	if err != nil {
		return err
	}
	given := make(map[string]string)
	for name, key := range known {
		if value, ok := flags[key]; ok {
			given[name] = value
			l.Origins[key] = "flag:--" + strings.ReplaceAll(strings.ReplaceAll(key, ".", "-"), "_", "-")
		}
	}
	return l.set(given)
}

// set parses variables into the configuration; what is not given stays.
func (l *Loaded) set(vars map[string]string) error {
	err := env.ParseWithOptions(&l.Config, env.Options{Environment: vars, Prefix: envPrefix})
	if err == nil {
		return nil
	}
	if all, ok := errors.AsType[env.AggregateError](err); ok {
		for _, one := range all.Errors {
			if parse, ok := errors.AsType[env.ParseError](one); ok {
				return fmt.Errorf("config: the environment or a flag gives %s a value that cannot be used: %w\nTry: gateway config show, for values that can", parse.Name, parse.Err)
			}
		}
	}
	return fmt.Errorf("config: the environment: %w", err)
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
		for _, section := range []string{"auth", "log", "lifecycle", "turns"} {
			if rest, ok := strings.CutPrefix(key, section+"_"); ok {
				key = section + "." + rest
			}
		}
		known[p.Key] = key
	}
	return known, nil
}

// resolvePaths makes every path absolute: those of the file are relative to it.
func (l *Loaded) resolvePaths() error {
	base := "."
	if l.File != "" {
		base = filepath.Dir(l.File)
	}
	resolve := func(path, base string) (string, error) {
		if path == "~" || strings.HasPrefix(path, "~/") {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("config: %s: %w\nTry: write the path in full", path, err)
			}
			return filepath.Join(home, path[1:]), nil
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(base, path)
		}
		return filepath.Abs(path)
	}
	var err error
	if l.Config.StateDir != "" {
		from := "."
		if strings.HasPrefix(l.Origins["state_dir"], "file:") {
			from = base
		}
		if l.Config.StateDir, err = resolve(l.Config.StateDir, from); err != nil {
			return err
		}
	}
	for name, a := range l.Config.Agents {
		if a.Dir != "" {
			if a.Dir, err = resolve(a.Dir, base); err != nil {
				return err
			}
			l.Config.Agents[name] = a
		}
	}
	return nil
}

// StateDir finds the state folder without reading more than it must: the commands that talk to a running
// gateway have to find it while its file is broken.
func StateDir(s Source) (string, error) {
	environ := s.Environ
	if environ == nil {
		environ = os.Environ()
	}
	vars := env.ToMap(environ)
	l := Loaded{Config: Default(), Origins: make(map[string]string)}
	switch flag, ok := s.Flags["state_dir"]; {
	case ok:
		l.Config.StateDir = flag
	case vars["GATEWAY_STATE_DIR"] != "":
		l.Config.StateDir = vars["GATEWAY_STATE_DIR"]
	default:
		var only struct {
			StateDir string `yaml:"state_dir"`
		}
		file := Loaded{Config: Default(), Origins: make(map[string]string)}
		if err := file.readFile(s.File, vars); file.File == "" {
			if err != nil {
				return "", err
			}
			break
		}
		l.File = file.File
		text, err := os.ReadFile(l.File)
		if err != nil {
			return "", fmt.Errorf("config: %w", err)
		}
		_ = yaml.Unmarshal(text, &only) // as far as it can be read
		if only.StateDir != "" {
			l.Config.StateDir, l.Origins["state_dir"] = only.StateDir, "file:"
		}
	}
	if l.Config.StateDir == "" {
		return "", Problem{"state_dir", "there is no home folder to keep state in", "set state_dir or GATEWAY_STATE_DIR"}
	}
	err := l.resolvePaths()
	return l.Config.StateDir, err
}
