package terminal

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// Markdown for the terminal: headings, emphasis, lists, quotes and code. Libraries that do more include the grammars of all
// programming languages, which would slow down every start of the gateway, and so every restart.

var (
	slanted = lipgloss.NewStyle().Italic(true)
	code    = lipgloss.NewStyle().Foreground(lipgloss.Cyan)
)

var markdownParser = parser.NewParser(
	parser.WithBlockParsers(parser.DefaultBlockParsers()...),
	parser.WithInlineParsers(parser.DefaultInlineParsers()...),
	parser.WithParagraphTransformers(parser.DefaultParagraphTransformers()...),
)

// renderMarkdown renders an answer at a width in cells. No content of the answer can move the cursor.
func renderMarkdown(answer string, width int) string {
	source := []byte(answer)
	r := rendering{source}
	lines := r.blocks(markdownParser.Parse(text.NewReader(source)), width, false)
	return ansi.Hardwrap(strings.Join(lines, "\n"), max(width, 1), true) // deep nesting can exceed the width
}

type rendering struct{ source []byte }

// blocks returns the lines of the blocks in n, separated by empty lines unless tight.
func (r rendering) blocks(n ast.Node, width int, tight bool) (lines []string) {
	for child := n.FirstChild(); child != nil; child = child.NextSibling() {
		if len(lines) > 0 && !tight {
			lines = append(lines, "")
		}
		lines = append(lines, r.block(child, max(width, 4))...)
	}
	return lines
}

func (r rendering) block(n ast.Node, width int) []string {
	switch n := n.(type) {
	case *ast.Heading:
		return wrapped(painted(strong, r.inline(n)), width)
	case *ast.FencedCodeBlock, *ast.CodeBlock, *ast.HTMLBlock:
		return behind("  ", wrapped(painted(code, strings.TrimRight(harmless(string(n.Lines().Value(r.source))), "\n")), width-2))
	case *ast.Blockquote:
		return behind(faint.Render("│ "), r.blocks(n, width-2, false))
	case *ast.ThematicBreak:
		return []string{faint.Render(strings.Repeat("─", min(width, 40)))}
	case *ast.List:
		return r.list(n, width)
	default:
		return wrapped(r.inline(n), width)
	}
}

func (r rendering) list(n *ast.List, width int) (lines []string) {
	number := n.Start
	for item := n.FirstChild(); item != nil; item = item.NextSibling() {
		mark := "• "
		if n.IsOrdered() {
			mark = fmt.Sprintf("%d. ", number)
			number++
		}
		if len(lines) > 0 && !n.IsTight {
			lines = append(lines, "")
		}
		for i, line := range r.blocks(item, width-len([]rune(mark)), n.IsTight) {
			if i > 0 {
				mark = strings.Repeat(" ", ansi.StringWidth(mark))
			}
			lines = append(lines, mark+line)
		}
	}
	return lines
}

// inline is the text in n.
func (r rendering) inline(n ast.Node) string {
	var b strings.Builder
	for child := n.FirstChild(); child != nil; child = child.NextSibling() {
		switch c := child.(type) {
		case *ast.Text:
			b.WriteString(r.words(c))
			if c.SoftLineBreak() || c.HardLineBreak() {
				b.WriteString("\n")
			}
		case *ast.String:
			b.WriteString(harmless(string(c.Value)))
		case *ast.CodeSpan:
			b.WriteString(painted(code, r.inline(c)))
		case *ast.Emphasis:
			style := slanted
			if c.Level > 1 {
				style = strong
			}
			b.WriteString(painted(style, r.inline(c)))
		case *ast.Link:
			b.WriteString(r.inline(c) + painted(faint, " ("+harmless(string(c.Destination))+")"))
		case *ast.Image:
			b.WriteString(r.inline(c) + painted(faint, " ("+harmless(string(c.Destination))+")"))
		case *ast.AutoLink:
			b.WriteString(harmless(string(c.URL(r.source))))
		case *ast.RawHTML:
			b.WriteString(harmless(string(c.Segments.Value(r.source))))
		default:
			b.WriteString(r.inline(c))
		}
	}
	return b.String()
}

func (r rendering) words(t *ast.Text) string {
	value := t.Segment.Value(r.source)
	if _, raw := t.Parent().(*ast.CodeSpan); !raw && !t.IsRaw() {
		value = util.UnescapePunctuations(util.ResolveEntityNames(util.ResolveNumericReferences(value)))
	}
	return harmless(string(value))
}

// painted styles each line alone: lipgloss would pad all lines to one width.
func painted(style lipgloss.Style, text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = style.Render(line)
		}
	}
	return strings.Join(lines, "\n")
}

func wrapped(text string, width int) []string {
	return strings.Split(ansi.Wrap(text, max(width, 1), ""), "\n")
}

func behind(mark string, lines []string) []string {
	for i, line := range lines {
		lines[i] = mark + line
	}
	return lines
}
