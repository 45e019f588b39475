package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts read like pages of the manual: the command, then what it prints.
func TestScripts(t *testing.T) {
	program := binary(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("HOME", e.WorkDir)
			e.Vars = append(e.Vars, raceOptions)
			e.Setenv("GATEWAY_STATE_DIR", filepath.Join(e.WorkDir, "state"))
			e.Setenv("GATEWAY_LISTEN", "127.0.0.1:0")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await":    await,
			"exitcode": exitCodeOf,
		},
	})
}
