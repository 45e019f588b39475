package config

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Warnings are what is valid but cannot work on this machine as it is now: the configuration may have been
// written for another one, or before a program is installed.
func (l Loaded) Warnings() Problems {
	var found Problems
	for _, name := range slices.Sorted(maps.Keys(l.Config.Agents)) {
		a, key := l.Config.Agents[name], "agents."+name
		if a.Type != "command" {
			continue
		}
		if stat, err := os.Stat(a.Dir); a.Dir != "" && (err != nil || !stat.IsDir()) {
			found = append(found, Problem{l.at(key + ".dir"), key + ".dir", "there is no folder " + a.Dir, "mkdir " + a.Dir})
			continue
		}
		program := a.Command[0]
		where, try := "on PATH", "install it, or write its path in full"
		if strings.ContainsRune(program, filepath.Separator) {
			where, try = "there, or it cannot be run", "the path of a program in full"
			if !filepath.IsAbs(program) {
				program = filepath.Join(a.Dir, program) // where it is looked for when it is run
			}
		}
		if _, err := exec.LookPath(program); err != nil {
			found = append(found, Problem{l.at(key + ".command"), key + ".command", "there is no program " + strconv.Quote(a.Command[0]) + " " + where, try})
		}
	}
	return found
}
