// The lanes: what runs and waits in them, now and over time.

import { call } from "./api.js";
import { $, attempt, confirm, el, since } from "./dom.js";

const fewLanes = 30; // are all shown; of more those where something happens
const lanes = new Map(); // by name
const rows = new Map(); // by name
let everyOne = false; // of many lanes

// news is the event of the stream: all lanes, or those that have changed.
export function news({ lanes: changed, all }) {
  if (all) lanes.clear();
  for (const l of changed) lanes.set(l.lane, l);
  show();
}

const busy = (l) => l.running + l.queued + l.stuck > 0 || l.paused;

function listed() {
  const all = [...lanes.values()];
  const text = $("#lane-filter").value.trim().toLowerCase();
  if (text) return all.filter((l) => l.lane.toLowerCase().includes(text)).slice(0, everyOne ? all.length : fewLanes);
  if (everyOne || all.length <= fewLanes) return all;
  const first = all.filter(busy);
  return [...first, ...all.filter((l) => !busy(l))].slice(0, fewLanes);
}

function show() {
  const list = listed();
  const names = new Set(list.map((l) => l.lane));
  for (const [name, row] of rows) {
    if (names.has(name)) continue;
    row.tr.remove();
    rows.delete(name);
  }
  const body = $("#lanes");
  list.forEach((l, i) => {
    const row = rows.get(l.lane) ?? make(l.lane);
    if (body.children[i] !== row.tr) body.insertBefore(row.tr, body.children[i] ?? null);
    fill(row, l);
  });
  $("#lane-tools").hidden = lanes.size <= fewLanes;
  $("#lane-count").textContent = list.length < lanes.size ? `${list.length} of ${lanes.size}` : `${lanes.size}`;
  $("#all-lanes").textContent = everyOne ? "Only those in use" : "All of them";
  totals();
}

function make(name) {
  const cells = Array.from({ length: 6 }, () => el("td", { className: "n" }));
  const button = el("button", { type: "button", className: "slim", onclick: () => pause(lanes.get(name)) });
  const row = { cells, button, tr: el("tr", {}, el("th", { scope: "row" }, name), ...cells, el("td", { className: "n" }, button)) };
  rows.set(name, row);
  return row;
}

function fill(row, l) {
  const values = [`${l.running} of ${l.concurrency}`, l.queued, l.oldest_queued_at ? since(l.oldest_queued_at) : "–", l.ended.completed, l.ended.failed, l.ended.cancelled];
  values.forEach((v, i) => {
    if (row.cells[i].textContent !== String(v)) row.cells[i].textContent = v;
    row.cells[i].classList.toggle("none", v === 0 || v === "–");
  });
  row.cells[0].classList.toggle("none", l.running === 0);
  row.cells[4].classList.toggle("bad", l.ended.failed > 0);
  row.tr.classList.toggle("paused", l.paused);
  const label = l.paused ? "Resume" : "Pause…";
  if (row.button.textContent === label) return;
  row.button.textContent = label;
  row.button.ariaLabel = `${l.paused ? "Resume" : "Pause"} the lane ${l.lane}`;
}

function sums() {
  const sum = { running: 0, queued: 0, completed: 0, failed: 0, oldest: "" };
  for (const l of lanes.values()) {
    sum.running += l.running;
    sum.queued += l.queued;
    sum.completed += l.ended.completed;
    sum.failed += l.ended.failed;
    if (l.oldest_queued_at && (!sum.oldest || l.oldest_queued_at < sum.oldest)) sum.oldest = l.oldest_queued_at;
  }
  return sum;
}

function totals() {
  const sum = sums();
  const set = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
  set("#sum-running", sum.running.toLocaleString());
  set("#sum-queued", sum.queued.toLocaleString());
  set("#sum-oldest", sum.oldest ? since(sum.oldest) : "–");
  set("#sum-completed", sum.completed.toLocaleString());
  set("#sum-failed", sum.failed.toLocaleString());
  $("#sum-failed").classList.toggle("bad", sum.failed > 0);
  return sum;
}

// tick keeps up what changes by itself, once a second, and draws the plot.
export function tick(visible) {
  const sum = totals();
  plot(sum);
  if (!visible) return;
  for (const [name, row] of rows) {
    const at = lanes.get(name)?.oldest_queued_at;
    if (at) row.cells[2].textContent = since(at);
  }
}

async function pause(l) {
  if (!l.paused && !(await confirm(`Pause the lane ${l.lane}?`, "Pause it", "What runs in it goes on. What waits, and what comes, waits until it is resumed, also across restarts."))) return;
  await attempt(() => call("PATCH", `/v1/lanes/${encodeURIComponent(l.lane)}`, { body: { paused: !l.paused } }));
}

// The plot: one point a second, for ten minutes.
const points = 600;
const data = [[], [], []];
let chart;

function plot({ running, queued }) {
  data[0].push(Date.now() / 1000);
  data[1].push(running);
  data[2].push(queued);
  for (const d of data) if (d.length > points) d.shift();
  const box = $("#plot");
  if (!box.clientWidth) return; // nobody sees it
  if (!chart) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    chart = new uPlot({
      width: box.clientWidth, height: box.clientHeight - 28,
      cursor: { show: false }, legend: { live: false },
      scales: { x: { range: (_, min, max) => [max - Math.min(points, Math.max(60, max - min)), max] }, y: { range: (_, min, max) => [0, Math.max(4, max * 1.1)] } },
      axes: [{ ...axis, values: "{HH}:{mm}:{ss}", space: 90 }, { ...axis, size: 40, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5] }],
      series: [
        {},
        { label: "running", stroke: colour("--accent"), width: 2, fill: colour("--soft"), points: { show: false } },
        { label: "queued", stroke: colour("--warn"), width: 2, points: { show: false } },
      ],
    }, data, box);
  }
  chart.setData(data);
  $("#plot").ariaLabel = `Running and queued turns over the last ten minutes; now ${running} running, ${queued} queued`;
}

function redraw() {
  chart?.destroy();
  chart = undefined;
}

export function start() {
  $("#lane-filter").oninput = show;
  $("#all-lanes").onclick = () => {
    everyOne = !everyOne;
    show();
  };
  new ResizeObserver(redraw).observe($("#plot"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
