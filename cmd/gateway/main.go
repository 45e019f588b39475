// Command gateway is a daemon in front of AI agents, and the commands that talk to it.
package main

import (
	"os"

	"gateway/internal/handoff"
	"gateway/internal/process"
)

func main() {
	// A successor that is checked is in memory beside the running gateway, and most of its pages so far were needed only
	// to initialise packages.
	if handoff.IsAsked() {
		_ = process.Shed()
	}
	err := newRootCommand(os.Stdin, os.Stdout, os.Stderr).Execute()
	complain(os.Stderr, err)
	os.Exit(int(exitCode(err)))
}
