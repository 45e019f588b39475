// Command gateway is a daemon in front of AI agents, and the commands that talk to it.
package main

import (
	"os"

	"gateway/internal/handoff"
	"gateway/internal/process"
)

func main() {
	// A process that is asked whether it could take over is in memory beside the gateway that asks, and most pages of
	// the program that it has so far were only for what packages do before main.
	if handoff.IsAsked() {
		_ = process.Shed()
	}
	err := newRootCommand(os.Stdin, os.Stdout, os.Stderr).Execute()
	complain(os.Stderr, err)
	os.Exit(int(exitCode(err)))
}
