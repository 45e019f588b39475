package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"gateway/queue"
)

const (
	// completionTime is how long a key press waits for the gateway.
	completionTime = 500 * time.Millisecond
)

// plainWord is what may be offered to a shell: the names of sessions come from whoever talks to the gateway, and a
// shell may evaluate what it is offered.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@/+-]*$`)

// offer asks the running gateway for names. It is silent when none runs, or none answers in time.
type offer func(ctx context.Context, c *client) ([]cobra.Completion, error)

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
	return []cobra.Completion{cobra.CompletionWithDesc(name, firstLine(description))}
}

func sessionNames(ctx context.Context, c *client) (words []cobra.Completion, err error) {
	var doc struct {
		Sessions []queue.Session `json:"sessions"`
	}
	err = c.call(ctx, http.MethodGet, "/v1/sessions?limit=50", nil, &doc, nil)
	for _, s := range doc.Sessions {
		words = append(words, word(s.Name, "used "+age(s.UpdatedAt)+" ago"+comma(pausedWord(s.Paused)))...)
	}
	return words, err
}

func laneNames(ctx context.Context, c *client) (words []cobra.Completion, err error) {
	var doc struct {
		Lanes []queue.Lane `json:"lanes"`
	}
	err = c.call(ctx, http.MethodGet, "/v1/lanes", nil, &doc, nil)
	for _, l := range doc.Lanes {
		words = append(words, word(l.Name, fmt.Sprintf("%d running, %d queued", l.Running, l.Queued)+comma(pausedWord(l.Paused)))...)
	}
	return words, err
}

func agentNames(ctx context.Context, c *client) (words []cobra.Completion, err error) {
	var doc struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	err = c.call(ctx, http.MethodGet, "/v1/models", nil, &doc, nil)
	for _, a := range doc.Data {
		words = append(words, word(a.ID, "")...)
	}
	return words, err
}

// turnIDs offers the newest turns that have one of the statuses, joined by commas; all when it is empty.
func turnIDs(status string) offer {
	return func(ctx context.Context, c *client) (words []cobra.Completion, err error) {
		var doc struct {
			Turns []queue.Turn `json:"turns"`
		}
		q := url.Values{"limit": {"50"}}
		if status != "" {
			q.Set("status", status)
		}
		err = c.call(ctx, http.MethodGet, "/v1/turns?"+q.Encode(), nil, &doc, nil)
		for _, t := range doc.Turns {
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
