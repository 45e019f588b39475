// Draws the lifecycle as SVG from the table's own JSON:
//
//	gateway states --format json | node draw.mjs > states.svg
//	gateway states --format json | node draw.mjs upright > states-upright.svg
//
// Every state is a group of the class state-NAME, every arrow one of the class from-STATE, so that a page can mark
// where the gateway is. The upright picture is for narrow screens.
import { Graphviz } from "@hpcc-js/wasm-graphviz";

const upright = process.argv[2] === "upright";
let text = "";
for await (const chunk of process.stdin) text += chunk;
const table = JSON.parse(text);

const arrows = new Map(); // "From To" to the events that lead there
for (const cell of table.cells) {
  if (cell.kind !== "transition") continue;
  const key = `${cell.state} ${cell.to}`;
  arrows.set(key, [...(arrows.get(key) ?? []), cell.when ? `${cell.event} [${cell.when}]` : cell.event]);
}

const dot = [
  "digraph {",
  `rankdir=${upright ? "TB" : "LR"}; bgcolor="transparent"; nodesep=${upright ? 0.2 : 0.35}; ranksep=${upright ? 0.4 : 0.45};`,
  'node [shape=box, style=rounded, fontname="sans-serif", fontsize=13, height=0.45, margin="0.24,0.06"];',
  'edge [fontname="sans-serif", fontsize=10, arrowsize=0.7];',
  ...table.states.map(({ state }) => `${state} [id="${upright ? "upright-" : ""}state-${state}", class="state state-${state}"];`),
  ...[...arrows].map(([key, events]) => {
    const [from, to] = key.split(" ");
    return `${from} -> ${to} [label="${events.join("\\n")}", class="arrow from-${from} to-${to}"];`;
  }),
  "}",
].join("\n");

const svg = (await Graphviz.load()).dot(dot);
process.stdout.write(
  svg
    .slice(svg.indexOf("<svg"))
    .replace(/<!--.*?-->\n?/gs, "")
    .replace(/ (width|height)="[^"]*pt"/g, "")
    .replace(/<title>.*?<\/title>\n?/gs, "")
    .replaceAll("&#45;", "-")
    .replaceAll('"black"', '"currentColor"')
    .replace(/ id="(graph0|edge\d+)"/g, "")
    .replace("<svg", '<svg role="img" aria-label="The states of the gateway and what leads from one to another"'),
);
