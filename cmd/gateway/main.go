// Command gateway is a daemon in front of AI agents, and the commands that talk to it.
package main

import (
	"os"

	"gateway/internal/process"
)

func main() {
	if process.IsAsked() { // the gateway that asks is there, too; most pages were for what packages do before main
		_ = process.Shed()
	}
	err := newRootCommand(os.Stdin, os.Stdout, os.Stderr).Execute()
	complain(os.Stderr, err)
	os.Exit(exitCode(err))
}
