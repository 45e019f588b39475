// Package service writes the unit files of the gateway for systemd.
//
// kardianos/service is not used for it: it knows neither a socket unit nor a way to show what it would write,
// and the unit below is mostly what makes this gateway's restarts quiet and its failures visible.
package service

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"gateway/internal/advice"
)

// Marker is the first line of every file that Install writes. Without it a file is somebody else's.
const Marker = "# Written by `gateway service install`. Changes are lost at the next one; use a drop-in instead."

// Unit is what the files depend on.
type Unit struct {
	// Name is that of the service, without a suffix.
	Name string
	// System: for the system's manager; otherwise for the user's own.
	System bool
	// RunAs is the user of a system service; empty for one that exists while it runs.
	RunAs string
	// Executable, Config and StateDir are absolute paths; the last two may be empty.
	Executable, Config, StateDir string
	// Socket: systemd opens Listen and keeps it open while no gateway runs.
	Socket bool
	Listen string
	// Path is the PATH of a user's service, which finds agents as the shell that installs it; empty leaves it
	// to the manager.
	Path string
	// Start and Stop are how long a start and a stop may take.
	Start, Stop time.Duration
}

// File is a unit file.
type File struct{ Path, Text string }

//go:embed gateway.service.tmpl
var serviceText string

//go:embed gateway.socket.tmpl
var socketText string

// Files renders the unit files for a folder of the manager.
func (u Unit) Files(dir string) ([]File, error) {
	if strings.Trim(u.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || u.Name == "" {
		return nil, advice.Errorf("service: %q is not a name for a service", u.Name).Try("letters, digits, - and _")
	}
	for _, path := range []string{u.Executable, u.Config, u.StateDir, u.RunAs, u.Listen, u.Path} {
		if !utf8.ValidString(path) || strings.ContainsFunc(path, unicode.IsControl) {
			return nil, advice.Errorf("service: %q has a character that cannot stand in a unit file", path).Try("another path")
		}
	}
	if strings.ContainsAny(u.Executable, `"'\`) {
		return nil, advice.Errorf("service: systemd runs no program whose path has a quotation mark or a backslash: %s", u.Executable).Try("a link to it")
	}
	templates := []struct{ suffix, text string }{{".service", serviceText}}
	if u.Socket {
		var err error
		if u.Listen, err = stream(u.Listen); err != nil {
			return nil, err
		}
		templates = append(templates, struct{ suffix, text string }{".socket", socketText})
	}
	var files []File
	for _, t := range templates {
		tmpl, err := template.New(t.suffix).Funcs(template.FuncMap{
			"arg": quote, "program": program, "setting": setting, "seconds": func(d time.Duration) int { return int((d + time.Second - 1) / time.Second) },
		}).Parse(t.text)
		if err != nil {
			return nil, fmt.Errorf("service: %w", err)
		}
		var b bytes.Buffer
		if err := tmpl.Execute(&b, u); err != nil {
			return nil, fmt.Errorf("service: %w", err)
		}
		files = append(files, File{filepath.Join(dir, u.Name+t.suffix), Marker + "\n" + b.String()})
	}
	return files, nil
}

// quote makes one word of a command line, as systemd.service(5) and systemd.syntax(7) read it.
func quote(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(word) + `"`
}

// program is quote for the first word, in which systemd replaces no variables.
func program(path string) string {
	return `"` + strings.ReplaceAll(path, "%", "%%") + `"`
}

// setting is quote for what is no command: systemd replaces no variables there either.
func setting(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(word) + `"`
}

// stream is the address as a socket unit takes it: numbers only.
func stream(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", advice.Errorf("service: %w", err).Try("host:port in listen")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", advice.Errorf("service: systemd cannot hold port %q", port).Try("a fixed port in listen, or leave out --socket")
	}
	switch host {
	case "":
		return port, nil // every interface, both families, as the gateway does
	case "localhost":
		host = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return "", advice.Errorf("service: systemd cannot hold a port at the name %q", host).Try("an address of numbers in listen, or leave out --socket")
	}
	return strings.ReplaceAll(net.JoinHostPort(host, port), "%", "%%"), nil
}

// Dir is the folder in which the manager looks for what an administrator or user has installed.
func Dir(system bool) (string, error) {
	if system {
		return "/etc/systemd/system", nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", advice.Errorf("service: %w", err).Try("set HOME or XDG_CONFIG_HOME")
	}
	return filepath.Join(config, "systemd", "user"), nil
}

// Write installs the files. One that is there already and is not ours is left alone, and so are all.
func Write(files []File) error {
	for _, f := range files {
		if err := ours(f.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, f := range files {
		err := os.MkdirAll(filepath.Dir(f.Path), 0o755) // systemd's own mode
		if err == nil {
			err = os.WriteFile(f.Path+".new", []byte(f.Text), 0o644) // there is no secret in it
		}
		if err == nil {
			err = os.Rename(f.Path+".new", f.Path)
		}
		if err != nil {
			return advice.Errorf("service: %w", err).Try("sudo, or --user, or --print to see the files")
		}
	}
	return nil
}

// Installed returns the paths of the files of a service that are there. It is an error when one is not ours.
func Installed(dir, name string) (paths []string, err error) {
	for _, suffix := range []string{".service", ".socket"} {
		path := filepath.Join(dir, name+suffix)
		switch err := ours(path); {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// Remove takes away the files of a service that are there, and returns their paths.
func Remove(dir, name string) (removed []string, err error) {
	paths, err := Installed(dir, name)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			return removed, advice.Errorf("service: %w", err).Try("sudo, or --user")
		}
		removed = append(removed, path)
	}
	return removed, nil
}

// ours is nil for a file that Write has written.
func ours(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(b), Marker) {
		return advice.Errorf("service: %s was not written by gateway service install", path).Try("move it away, or another --name")
	}
	return nil
}
