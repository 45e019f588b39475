package service

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// odd has everything in it that systemd treats in a way of its own.
const odd = `a b%h$HOME"c'd\n;e`

func unit(executable string, changes ...func(*Unit)) Unit {
	u := Unit{Name: "gateway", Executable: executable, Listen: "127.0.0.1:18789", Path: "/usr/bin:/opt/100%/bin", Start: 45 * time.Second, Stop: 20 * time.Second}
	for _, change := range changes {
		change(&u)
	}
	return u
}

func system(u *Unit) { u.System, u.Path = true, "" }

func listening(address string) func(*Unit) {
	return func(u *Unit) { u.Socket, u.Listen = true, address }
}

// analyze finds systemd-analyze. A machine that tests for everyone must have it; see make deps.
func analyze(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("there is no systemd-analyze here. Try: make deps")
	}
	require.NoError(t, err)
	return path
}

func written(t *testing.T, u Unit) (paths []string) {
	t.Helper()
	files, err := u.Files(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, Write(files))
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	return paths
}

func TestSystemdAcceptsTheUnits(t *testing.T) {
	tool := analyze(t)
	for _, folder := range []string{"bin", "a b%h$HOME;${HOME}e"} {
		executable := filepath.Join(t.TempDir(), folder, "gateway")
		require.NoError(t, os.MkdirAll(filepath.Dir(executable), 0o755))
		require.NoError(t, os.WriteFile(executable, []byte("#!/bin/sh\n"), 0o755))
		for name, u := range map[string]Unit{
			"user":           unit(executable),
			"user, paths":    unit(executable, func(u *Unit) { u.Config, u.StateDir = "/"+odd+"/c.yaml", "/"+odd }),
			"user, socket":   unit(executable, listening("localhost:1")),
			"user, IPv6":     unit(executable, listening("[::1]:1")),
			"system":         unit(executable, system),
			"system, as me":  unit(executable, system, func(u *Unit) { u.RunAs = "root" }),
			"system, paths":  unit(executable, system, func(u *Unit) { u.Config, u.StateDir = "/"+odd+"/c.yaml", "/"+odd }),
			"system, socket": unit(executable, system, listening(":80")),
		} {
			args := []string{"verify", "--man=no", "--recursive-errors=no"}
			if !u.System {
				args = append(args, "--user")
			}
			cmd := exec.CommandContext(t.Context(), tool, append(args, written(t, u)...)...)
			cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s: %s", name, out)
			require.Empty(t, string(bytes.TrimSpace(out)), name)
		}
	}
}

// The tool's number is the exposure: 10 is a service without any protection.
func TestASystemServiceIsLittleExposed(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), analyze(t), "security", "--offline=true", written(t, unit("/usr/bin/gateway", system))[0]).CombinedOutput()
	require.NoError(t, err, "%s", out)
	m := regexp.MustCompile(`exposure level for gateway.service: ([0-9.]+)`).FindSubmatch(out)
	require.NotNil(t, m, "%s", out)
	exposure, err := strconv.ParseFloat(string(m[1]), 64)
	require.NoError(t, err)
	t.Logf("exposure %.1f", exposure)
	require.LessOrEqual(t, exposure, 4.0)
}

func TestWordsAreQuotedForSystemd(t *testing.T) {
	files, err := unit("/a b/$HOME%n", func(u *Unit) { u.Config = "/" + odd }).Files("/units")
	require.NoError(t, err)
	require.Contains(t, files[0].Text, `ExecStart=:"/a b/$HOME%%n" run --config "/a b%%h$HOME\"c'd\\n;e"`+"\n")
	require.Contains(t, files[0].Text, `Environment="PATH=/usr/bin:/opt/100%%/bin"`+"\n")
}

func TestTheSocketIsTheAddressOfTheConfiguration(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:18789": "127.0.0.1:18789", "localhost:1": "127.0.0.1:1", ":80": "80", "[::1]:80": "[::1]:80", "[fe80::1%eth0]:80": "[fe80::1%%eth0]:80",
	} {
		files, err := unit("/g", listening(listen)).Files("/units")
		require.NoError(t, err)
		require.Contains(t, files[1].Text, "ListenStream="+want+"\n")
	}
	for _, listen := range []string{"127.0.0.1:0", "example.org:80", "127.0.0.1:http", "nowhere"} {
		_, err := unit("/g", listening(listen)).Files("/units")
		require.ErrorContains(t, err, "\nTry:", listen)
	}
}

func TestWhatAUnitCannotHoldIsRefused(t *testing.T) {
	for name, u := range map[string]Unit{
		"a line end": unit("/g\nExecStartPre=/bin/evil"), "no text": unit("/g\xff"), "a quote": unit(`/a"b/g`),
		"a config": unit("/g", func(u *Unit) { u.Config = "/c\x00" }), "a path": unit("/g", func(u *Unit) { u.Path = "/a\n" }),
		"a name": unit("/g", func(u *Unit) { u.Name = "../gateway" }), "no name": unit("/g", func(u *Unit) { u.Name = "" }),
	} {
		_, err := u.Files("/units")
		require.ErrorContains(t, err, "\nTry:", name)
	}
}

func TestAFileOfSomebodyElseStays(t *testing.T) {
	dir := t.TempDir()
	files, err := unit("/g", listening("127.0.0.1:1")).Files(dir)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(files[1].Path, []byte("[Socket]\n"), 0o600))
	require.ErrorContains(t, Write(files), "\nTry:")
	require.NoFileExists(t, files[0].Path, "none is written when one is not ours")
	require.NoError(t, os.Remove(files[1].Path))
	require.NoError(t, Write(files[:1]))
	require.NoError(t, os.WriteFile(files[1].Path, []byte("[Socket]\n"), 0o600))
	removed, err := Remove(dir, "gateway")
	require.ErrorContains(t, err, "\nTry:")
	require.Empty(t, removed, "none is removed when one is not ours")
	require.FileExists(t, files[0].Path)
}
