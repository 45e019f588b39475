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
	// completionTime bounds the wait of a key press for the gateway.
	completionTime = 500 * time.Millisecond
	// offered is the most names of a kind that are offered.
	offered = 50
)

// plainWord matches the words that are safe to offer to a shell: clients choose the names of sessions, and a shell may
// evaluate a completion.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@/+-]*$`)

// offer requests names from the running gateway.
type offer func(ctx context.Context, c *client.Client) ([]cobra.Completion, error)

// complete completes an argument or a flag with the offer, and with nothing when no gateway answers in time.
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

// completeFlag sets the completion of a flag. It panics when the command has no such flag.
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

// word is a completion with a description; none when the name is not a plain word.
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

// turnIDs offers the newest turns with one of the statuses, separated by commas; empty for all.
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

// completeSending sets the completion of the flags of a new turn.
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
