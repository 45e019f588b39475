package service

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func unit(t *testing.T) Unit {
	t.Helper()
	program := filepath.Join(t.TempDir(), `a $HOME 100% path`, "gateway")
	require.NoError(t, os.MkdirAll(filepath.Dir(program), 0o755))
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755))
	return Unit{
		Name: "gateway", Executable: program, Config: `/etc/a "strange" $HOME 100% path\here.yaml`, Listen: "127.0.0.1:18789", Socket: true,
		Start: 30500 * time.Millisecond, Stop: 5 * time.Second,
	}
}

func TestSystemdAcceptsTheFiles(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	for name, change := range map[string]func(*Unit){
		"user":              func(*Unit) {},
		"user, own state":   func(u *Unit) { u.StateDir = "/var/lib/a b" },
		"system":            func(u *Unit) { u.System = true },
		"system, own state": func(u *Unit) { u.System, u.StateDir = true, "/var/lib/a b" },
		"system, root":      func(u *Unit) { u.System, u.RunAs = true, "root" },
		"a name":            func(u *Unit) { u.Listen = "localhost:1" },
		"every interface":   func(u *Unit) { u.Listen = ":80" },
		"a path":            func(u *Unit) { u.Path = "/a $HOME:/100%:/usr/bin" },
		"no socket":         func(u *Unit) { u.Socket, u.Config = false, "" },
	} {
		t.Run(name, func(t *testing.T) {
			u, dir := unit(t), t.TempDir()
			change(&u)
			files, err := u.Files(dir)
			require.NoError(t, err)
			require.NoError(t, Write(files))
			scope := "--user"
			if u.System {
				scope = "--system"
			}
			args := []string{"verify", scope, "--man=no"}
			for _, f := range files {
				args = append(args, f.Path)
			}
			cmd := exec.CommandContext(t.Context(), "systemd-analyze", args...)
			cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir(), "SYSTEMD_LOG_LEVEL=warning")
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.NotContains(t, string(out), filepath.Base(files[0].Path), "no complaint about it")
		})
	}
}

func TestWordsAreQuotedForSystemd(t *testing.T) {
	require.Equal(t, `"/a b/100%% \"x\" $$HOME \\"`, quote(`/a b/100% "x" $HOME \`))
	u := unit(t)
	files, err := u.Files("/units")
	require.NoError(t, err)
	require.Len(t, files, 2)
	require.Contains(t, files[0].Text, "ExecStart="+program(u.Executable)+" run --config "+quote(u.Config))
	require.Contains(t, files[0].Text, "TimeoutStartSec=31\n")
	require.Contains(t, files[1].Text, "ListenStream=127.0.0.1:18789\n")
}

func TestTheSocketIsTheAddressOfTheConfiguration(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:18789": "127.0.0.1:18789", "localhost:1": "127.0.0.1:1", ":80": "80", "[::1]:80": "[::1]:80", "[fe80::1%eth0]:80": "[fe80::1%%eth0]:80",
	} {
		u := unit(t)
		u.Listen = listen
		files, err := u.Files("/units")
		require.NoError(t, err)
		require.Contains(t, files[1].Text, "ListenStream="+want+"\n")
	}
	for _, listen := range []string{"127.0.0.1:0", "example.org:80", "127.0.0.1:http", "nowhere"} {
		u := unit(t)
		u.Listen = listen
		_, err := u.Files("/units")
		require.ErrorContains(t, err, "\nTry: ", listen)
	}
}

func TestNothingIsRemovedWhenOneFileIsSomebodyElses(t *testing.T) {
	files, err := unit(t).Files(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, Write(files[:1]))
	require.NoError(t, os.WriteFile(files[1].Path, []byte("[Socket]\n"), 0o600))
	removed, err := Remove(filepath.Dir(files[0].Path), "gateway")
	require.ErrorContains(t, err, "was not written by")
	require.Empty(t, removed)
	require.FileExists(t, files[0].Path)
}

func TestWhatCannotStandInAUnitIsRefused(t *testing.T) {
	for _, change := range []func(*Unit){
		func(u *Unit) { u.Name = "../x" },
		func(u *Unit) { u.Name = "" },
		func(u *Unit) { u.Config = "/a\nExecStartPre=/bin/evil" },
		func(u *Unit) { u.RunAs = "a\nb" },
		func(u *Unit) { u.Executable = `/a"b` },
		func(u *Unit) { u.Config = "/a\xff" },
		func(u *Unit) { u.Path = "/a\n" },
	} {
		u := unit(t)
		change(&u)
		_, err := u.Files("/units")
		require.ErrorContains(t, err, "\nTry: ")
	}
}

func TestAFileOfSomebodyElseIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.socket")
	require.NoError(t, os.WriteFile(path, []byte("[Socket]\n"), 0o600))
	files, err := unit(t).Files(dir)
	require.NoError(t, err)
	require.ErrorContains(t, Write(files), "was not written by gateway service install\nTry: ")
	require.NoFileExists(t, files[0].Path, "nothing is half done")
	_, err = Remove(dir, "gateway")
	require.ErrorContains(t, err, "was not written by")
	require.NoError(t, os.Remove(path))
	require.NoError(t, Write(files))
	require.NoError(t, Write(files), "its own files may be written again")
	removed, err := Remove(dir, "gateway")
	require.NoError(t, err)
	require.Len(t, removed, 2)
	removed, err = Remove(dir, "gateway")
	require.NoError(t, err)
	require.Empty(t, removed)
}

func TestTheFolderIsThatOfTheManager(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", "/home/x/.config")
	dir, err := Dir(false)
	require.NoError(t, err)
	require.Equal(t, "/home/x/.config/systemd/user", dir)
	dir, err = Dir(true)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(dir, "/etc/"))
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("HOME", "")
	_, err = Dir(false)
	require.ErrorContains(t, err, "\nTry: ")
}
