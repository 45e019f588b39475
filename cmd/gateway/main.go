// Command gateway is a daemon in front of AI agents, and the commands that talk to it.
package main

import "os"

func main() {
	err := newRootCommand(os.Stdin, os.Stdout, os.Stderr).Execute()
	complain(os.Stderr, err)
	os.Exit(exitCode(err))
}
