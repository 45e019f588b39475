package main

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"gateway/internal/client"
	"gateway/internal/terminal"
)

const (
	// completionTime is how long a key press waits for the gateway.
	completionTime = 500 * time.Millisecond
	// offered is how many names of a kind are offered.
	offered = 50
)

// plainWord is what may be offered to a shell: the names of sessions come from whoever talks to the gateway, and a
// shell may evaluate what it is offered.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@/+-]*$`)

// offer asks the running gateway for names. It is silent when none runs, or none answers in time.
type offer func(ctx context.Context, c *client.Client) ([]cobra.Completion, error)

// complete makes the offer for the first argument, or for a flag.
func (o *options) complete(names offer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completionTime)
		defer cancel()
		c, err := o.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := names(ctx, c)
		if err != nil {
			found = nil
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// first completes only the first argument.
func first(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, typed)
	}
}

// completeFlag sets what a flag is completed with. A flag that is not there is a mistake in the program.
func completeFlag(cmd *cobra.Command, name string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(name, complete); err != nil {
		panic(err)
	}
}

func choices(words ...cobra.Completion) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

func completeFiles(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

func completeFolders(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// word is an offer with a description, and nothing when it is no plain word.
func word(name, description string) []cobra.Completion {
	if !plainWord.MatchString(name) {
		return nil
	}
	return []cobra.Completion{cobra.CompletionWithDesc(name, terminal.FirstLine(description))}
}

func sessionNames(ctx context.Context, c *client.Client) (words []cobra.Completion, err error) {
	list, err := c.Sessions(ctx, offered)
	for _, s := range list.Sessions {
		words = append(words, word(s.Name, "used "+terminal.Age(s.UpdatedAt)+" ago"+comma(terminal.PausedWord(s.Paused)))...)
	}
	return words, err
}

func laneNames(ctx context.Context, c *client.Client) (words []cobra.Completion, err error) {
	list, err := c.Lanes(ctx)
	for _, l := range list.Lanes {
		words = append(words, word(l.Name, fmt.Sprintf("%d running, %d queued", l.Running, l.Queued)+comma(terminal.PausedWord(l.Paused)))...)
	}
	return words, err
}

func agentNames(ctx context.Context, c *client.Client) (words []cobra.Completion, err error) {
	names, err := c.Agents(ctx)
	for _, name := range names {
		words = append(words, word(name, "")...)
	}
	return words, err
}

// turnIDs offers the newest turns that have one of the statuses, joined by commas; all when it is empty.
func turnIDs(status string) offer {
	return func(ctx context.Context, c *client.Client) (words []cobra.Completion, err error) {
		q := url.Values{"limit": {strconv.Itoa(offered)}}
		if status != "" {
			q.Set("status", status)
		}
		list, err := c.Turns(ctx, q)
		for _, t := range list.Turns {
			words = append(words, word(t.ID, string(t.Status)+" in "+t.Session+": "+t.Input)...)
		}
		return words, err
	}
}

// completeSending sets what the flags of a new turn are completed with.
func (o *options) completeSending(cmd *cobra.Command) {
	completeFlag(cmd, "session", o.complete(sessionNames))
	completeFlag(cmd, "agent", o.complete(agentNames))
	if cmd.Flags().Lookup("lane") != nil {
		completeFlag(cmd, "lane", o.complete(laneNames))
	}
	if cmd.Flags().Lookup("mode") != nil {
		completeFlag(cmd, "mode", choices("followup", "collect", "interrupt"))
	}
}
