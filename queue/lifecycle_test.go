package queue

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheLifecycleIsWhole(t *testing.T) {
	l := turnLifecycle()
	require.NoError(t, l.check())
	t.Logf("%d statuses × %d occurrences: %d cells, %d rules", len(l.Statuses), len(l.Occurrences), len(l.index()), len(l.Rules))
	require.Len(t, l.index(), len(l.Statuses)*len(l.Occurrences))
}

func TestTheLifecycleAgreesOnWhatIsFinal(t *testing.T) {
	for _, r := range turnLifecycle().Rules {
		if r.Kind == transition {
			require.Equal(t, r.To.Final(), r.Event.Final(), r.String())
		}
	}
}

func TestTheCheckFindsEveryKindOfMistake(t *testing.T) {
	at := func(l *lifecycle, s Status, on occurrence) *rule {
		return &l.Rules[slices.IndexFunc(l.Rules, func(r rule) bool { return r.Status == s && r.Occurrence == on })]
	}
	for name, c := range map[string]struct {
		spoil func(*lifecycle)
		says  string
	}{
		"a cell that is gone":          {func(l *lifecycle) { l.Rules = l.Rules[1:] }, "absent × accept: 0 rules hold"},
		"a cell twice":                 {func(l *lifecycle) { l.Rules = append(l.Rules, l.Rules[0]) }, "absent × accept: 2 rules hold"},
		"a guard that leaves a gap":    {func(l *lifecycle) { at(l, Running, onCrash).When |= agentCalled }, "running × crash: 0 rules hold"},
		"guards that overlap":          {func(l *lifecycle) { at(l, Running, onCrash).When = 0 }, "running × crash: 2 rules hold"},
		"a status that nobody knows":   {func(l *lifecycle) { at(l, Queued, onCancel).To = "cancled" }, "not declared"},
		"an occurrence nobody knows":   {func(l *lifecycle) { at(l, Queued, onCancel).Occurrence = "cancle" }, "not declared"},
		"a status twice":               {func(l *lifecycle) { l.Statuses = append(l.Statuses, l.Statuses[0]) }, "declared twice"},
		"an occurrence twice":          {func(l *lifecycle) { l.Occurrences = append(l.Occurrences, l.Occurrences[0]) }, "declared twice"},
		"a status without words":       {func(l *lifecycle) { l.Statuses[1].Means = "" }, "not described"},
		"an occurrence without words":  {func(l *lifecycle) { l.Occurrences[1].Raised = "" }, "not described"},
		"an unknown kind":              {func(l *lifecycle) { l.Rules[0].Kind = "perhaps" }, "unknown kind"},
		"no reason":                    {func(l *lifecycle) { l.Rules[0].Why = "" }, "does not say why"},
		"a transition to itself":       {func(l *lifecycle) { at(l, Queued, onCancel).To = Queued }, "does not move"},
		"a transition without event":   {func(l *lifecycle) { at(l, Queued, onCancel).Event = "" }, "writes one event"},
		"the event of another status":  {func(l *lifecycle) { at(l, Queued, onCancel).Event = EventFailed }, "an event of its own"},
		"a slot that is not freed":     {func(l *lifecycle) { at(l, Running, onComplete).Slot = "" }, "the slot belongs to"},
		"a slot that nobody took":      {func(l *lifecycle) { at(l, Queued, onCancel).Slot = freesSlot }, "the slot belongs to"},
		"a start that is no run":       {func(l *lifecycle) { at(l, Queued, onStart).Run = false }, "are counted where"},
		"an attempt given back twice":  {func(l *lifecycle) { at(l, Queued, onCancel).Attempt = givesBack }, "are counted where"},
		"a pause after the end":        {func(l *lifecycle) { at(l, Queued, onCancel).Pause = true }, "can wait for it"},
		"an end that moves on":         {func(l *lifecycle) { r := *at(l, Failed, onRetry); r.Occurrence = onCrash; *at(l, Failed, onCrash) = r }, "moves on by itself"},
		"a refusal without an error":   {func(l *lifecycle) { at(l, Queued, onDelete).Err = nil }, "returns an error and nothing else"},
		"a refusal that writes":        {func(l *lifecycle) { at(l, Queued, onDelete).Event = EventDelta }, "returns an error and nothing else"},
		"an internal that moves":       {func(l *lifecycle) { at(l, Running, onText).To = Queued }, "writes an event and nothing else"},
		"an unaffected that writes":    {func(l *lifecycle) { at(l, Queued, onCrash).Event = EventDelta }, "but changes something"},
		"a status nobody comes to":     {func(l *lifecycle) { l.Statuses = append(l.Statuses, statusSpec{"waiting", "x", "x"}) }, "cannot be reached"},
		"an impossible with an effect": {func(l *lifecycle) { at(l, Queued, onText).Slot = freesSlot }, "but changes something"},
	} {
		t.Run(name, func(t *testing.T) {
			l := turnLifecycle()
			c.spoil(&l)
			require.ErrorContains(t, l.check(), c.says)
		})
	}
}
