package main

import (
	"fmt"
	"html"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
)

var (
	literal = lipgloss.NewStyle().Foreground(lipgloss.Cyan)
	slanted = lipgloss.NewStyle().Italic(true)
)

// markdown renders Markdown for a terminal of a width. It leaves nothing in that moves the cursor. The parser is small:
// what highlights code as well costs the daemon, which is the same program, half of its memory.
func markdown(source string, width int) string {
	p := rendering{[]byte(harmless(source))}
	doc := goldmark.DefaultParser().Parse(text.NewReader(p.source))
	return strings.Join(p.blocks(doc, max(8, width)), "\n")
}

// rendering is a document that is rendered.
type rendering struct{ source []byte }

// blocks are the lines of what is in n. Between blocks is an empty line, but in lists that have none.
func (p rendering) blocks(n ast.Node, width int) (lines []string) {
	for b := n.FirstChild(); b != nil; b = b.NextSibling() {
		if len(lines) > 0 && b.Kind() != ast.KindListItem && b.Kind() != ast.KindTextBlock && n.Kind() != ast.KindListItem {
			lines = append(lines, "")
		}
		lines = append(lines, p.block(b, width)...)
	}
	return lines
}

func (p rendering) block(n ast.Node, width int) []string {
	switch n := n.(type) {
	case *ast.Heading:
		return wrapped(paint(strong, p.inline(n)), width)
	case *ast.Paragraph, *ast.TextBlock:
		return wrapped(p.inline(n), width)
	case *ast.List:
		return p.list(n, width)
	case *ast.Blockquote:
		return behind("│ ", "│ ", p.blocks(n, width-2))
	case *ast.ThematicBreak:
		return []string{strings.Repeat("─", min(width, 40))}
	case *ast.CodeBlock, *ast.FencedCodeBlock:
		return behind("    ", "    ", wrapped(paint(literal, p.raw(n)), width-4))
	}
	if n.Type() == ast.TypeBlock && n.Lines().Len() > 0 {
		return wrapped(p.raw(n), width)
	}
	return p.blocks(n, width)
}

func (p rendering) list(n *ast.List, width int) (lines []string) {
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
		lines = append(lines, behind(mark, strings.Repeat(" ", lipgloss.Width(mark)), p.blocks(item, width-lipgloss.Width(mark)))...)
	}
	return lines
}

// raw is a block as it was written.
func (p rendering) raw(n ast.Node) string {
	var b strings.Builder
	for i := range n.Lines().Len() {
		line := n.Lines().At(i)
		b.Write(line.Value(p.source))
	}
	return strings.TrimRight(b.String(), "\n")
}

// inline is the text in n. Lines stay as they were written: they may be a table or a poem.
func (p rendering) inline(n ast.Node) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		switch c := c.(type) {
		case *ast.Text:
			b.WriteString(plainText(c.Segment.Value(p.source)))
			if c.SoftLineBreak() || c.HardLineBreak() {
				b.WriteByte('\n')
			}
		case *ast.String:
			b.WriteString(plainText(c.Value))
		case *ast.CodeSpan:
			b.WriteString(paint(literal, p.inline(c)))
		case *ast.Emphasis:
			style := slanted
			if c.Level > 1 {
				style = strong
			}
			b.WriteString(paint(style, p.inline(c)))
		case *ast.AutoLink:
			b.WriteString(harmless(string(c.Label(p.source))))
		case *ast.RawHTML:
			b.WriteString(harmless(string(c.Segments.Value(p.source))))
		case *ast.Link:
			name, to := p.inline(c), oneLine(plainText(c.Destination), 1000)
			b.WriteString(name)
			if to != "" && to != name {
				b.WriteString(" (" + to + ")")
			}
		default:
			b.WriteString(p.inline(c))
		}
	}
	return b.String()
}

// plainText is text without its references, by which any character can be spelt.
func plainText(b []byte) string { return harmless(html.UnescapeString(string(b))) }

// paint styles each line by itself.
func paint(style lipgloss.Style, text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = style.Render(line)
	}
	return strings.Join(lines, "\n")
}

func wrapped(text string, width int) []string {
	return strings.Split(lipgloss.Wrap(text, max(4, width), ""), "\n")
}

// behind sets a mark before the first line, and other before the rest.
func behind(mark, other string, lines []string) []string {
	if len(lines) == 0 {
		return []string{strings.TrimRight(mark, " ")}
	}
	for i := range lines {
		lines[i] = mark + lines[i]
		mark = other
	}
	return lines
}
