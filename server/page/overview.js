// The overview: where the gateway is, what it waits for, and its lanes.

import { call, follow } from "./api.js";
import { $, attempt, confirm, dateTime, el, facts, lasted, notify, since, sleep, time } from "./dom.js";

const maxHops = 100;
let status; // the newest document of GET /v1/lifecycle
let answered = true;
let shown = ""; // what the header says, so that a screen reader hears it once

// watch follows the lifecycle for ever.
export async function watch(onReturn) {
  let last;
  for await (const event of follow("/v1/lifecycle")) {
    switch (event.type) {
      case "away":
        answered = false;
        break;
      case "back":
        answered = true;
        onReturn();
        break;
      case "status":
        answered = true;
        status = event.data;
        break;
      case "hop":
        if (event.data.seq <= last) break;
        last = event.data.seq;
        hop(event.data);
        if (status) Object.assign(status, { state: event.data.to, since: event.data.time });
        refresh();
        break;
      case "shutdown":
        if (status) status.note = event.data.reason;
        break;
    }
    show();
  }
}

let refreshing = false;

// refresh asks for what a hop does not say: the deadline, and what is intended.
async function refresh() {
  if (refreshing) return;
  refreshing = true;
  try {
    const { history, ...now } = await call("GET", "/v1/lifecycle");
    if (!status || now.hop >= status.hop) status = now;
    show();
  } catch { /* the stream says what there is to say */ } finally {
    refreshing = false;
  }
}

function hop(h) {
  const list = $("#hops");
  list.prepend(el("li", {},
    el("time", { dateTime: h.time, title: dateTime(h.time) }, time(h.time)),
    el("span", {}, h.from ? `${h.from} → ${h.to}` : h.to),
    el("span", { className: "quiet" }, h.from && h.lasted_ms ? lasted(h.lasted_ms) : ""),
    el("span", { className: "why quiet small" }, [h.event, `by ${h.actor}`, h.reason].filter(Boolean).join(" · ")),
  ));
  while (list.children.length > maxHops) list.lastChild.remove();
}

function show() {
  if (!status) return;
  const { state } = status;
  const said = answered ? state : state === "Running" ? "No answer" : `${state}, waiting`;
  if (said !== shown) {
    shown = said;
    $("#state").textContent = said;
    $("#state").className = `badge ${answered ? state : "away"}`;
    document.title = state === "Running" && answered ? "gateway" : `${said} · gateway`;
  }
  $("#since").textContent = `for ${since(status.since)}`;
  for (const e of document.querySelectorAll("#diagram .here, #diagram .next")) e.classList.remove("here", "next", "passing");
  $(`#state-${state}`)?.classList.add("here", ...(state === "Running" ? [] : ["passing"]));
  for (const e of document.querySelectorAll(`#diagram .from-${state}`)) e.classList.add("next");
  $("#restart").disabled = state !== "Running";
  $("#resume").hidden = state !== "Draining";
  $("#stop").disabled = !answered || status.intent === "stop";
  facts($("#facts"), [
    ["Address", `${status.tls ? "https" : "http"}://${status.address}`],
    ["Version", status.version],
    ["Process", `${status.pid}, boot ${status.boot_id}, generation ${status.generation}`],
    ["Restarts by", `${status.respawn_mode} (${status.respawn_reason})`],
    ["State folder", status.state_dir],
    ["Turns", `${status.turns.running} running, ${status.turns.queued} queued` + (status.turns.stuck ? `, ${status.turns.stuck} stuck` : "")],
  ]);
  countdown();
}

let holding = ""; // which turns hold the drain

function countdown() {
  const box = $("#countdown");
  const left = status.deadline ? new Date(status.deadline) - Date.now() : 0;
  box.hidden = left <= 0 || !answered;
  if (!box.hidden) box.textContent = `${status.state} for at most ${lasted(left)} more.${status.state === "Draining" ? holding : ""}`;
}

const describeTurns = (turns) => turns.map((t) => `${t.session} (${t.agent}), for ${since(t.started_at)}`);

// tick keeps what changes all the time up to date, once a second while somebody looks.
export async function tick(visible) {
  if (!status) return;
  show();
  if (!visible || !answered) return;
  const { lanes } = await call("GET", "/v1/lanes");
  showLanes(lanes);
  const now = lanes.reduce((sum, l) => ({ running: sum.running + l.running, queued: sum.queued + l.queued }), { running: 0, queued: 0 });
  Object.assign(status.turns, now);
  plot(now);
  if (status.state === "Draining") {
    const { turns } = await call("GET", "/v1/turns?status=running&limit=5");
    holding = turns.length ? ` It waits for\n${describeTurns(turns).map((t) => `• ${t}`).join("\n")}` : "";
  }
}

const rows = new Map(); // of the lanes, by name

function showLanes(lanes) {
  for (const [name, row] of rows) {
    if (!lanes.some((l) => l.lane === name)) {
      row.tr.remove();
      rows.delete(name);
    }
  }
  for (const l of lanes) {
    let row = rows.get(l.lane);
    if (!row) {
      const cells = Array.from({ length: 6 }, () => el("td", { className: "n" }));
      const button = el("button", { type: "button", onclick: () => pauseLane(row.lane) });
      row = { cells, button, tr: el("tr", {}, el("td", {}, l.lane), ...cells, el("td", { className: "n" }, button)) };
      rows.set(l.lane, row);
      $("#lanes").append(row.tr);
    }
    row.lane = l;
    const values = [`${l.running} of ${l.concurrency}`, l.queued, l.oldest_queued_at ? since(l.oldest_queued_at) : "–", l.ended.completed, l.ended.failed, l.ended.cancelled];
    values.forEach((v, i) => { if (row.cells[i].textContent !== String(v)) row.cells[i].textContent = v; });
    row.tr.classList.toggle("paused", l.paused);
    const label = l.paused ? "Resume" : "Pause…";
    if (row.button.textContent !== label) row.button.textContent = label;
    row.button.ariaLabel = `${l.paused ? "Resume" : "Pause"} the lane ${l.lane}`;
  }
}

async function pauseLane(l) {
  if (!l.paused && !(await confirm(`Pause the lane ${l.lane}?`, "Pause it", "What runs in it goes on. What waits, and what comes, waits until it is resumed, also across restarts."))) return;
  await attempt(() => call("PATCH", `/v1/lanes/${encodeURIComponent(l.lane)}`, { body: { paused: !l.paused } }));
  await attempt(() => tick(true));
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
      scales: { x: { range: (_, min, max) => [max - points, max] }, y: { range: (_, min, max) => [0, Math.max(4, max * 1.1)] } },
      axes: [axis, { ...axis, size: 40, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5] }],
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

async function restart() {
  const { turns } = await call("GET", "/v1/turns?status=running&limit=20");
  const reason = el("input", { name: "reason", maxLength: 200, placeholder: "for the history" });
  const force = el("input", { type: "checkbox" });
  const waits = turns.length
    ? [`It would wait for ${turns.length === 20 ? "20 or more" : turns.length} running turn${turns.length === 1 ? "" : "s"}, up to the drain's deadline. Nothing is lost either way.`, el("ul", {}, ...describeTurns(turns).map((t) => el("li", {}, t))),
       el("label", { className: "check" }, force, "Do not wait: they are interrupted and run again")]
    : ["Nothing runs, so it takes a moment. Connections and requests wait, and nothing is lost."];
  if (!(await confirm("Restart the gateway?", "Restart", ...waits, el("label", {}, "Reason", reason)))) return;
  await ask("restart", { ...(reason.value && { reason: reason.value }), ...(force.checked && { drain_timeout: "0s" }) });
}

async function ask(event, body = {}) {
  const decision = await attempt(() => call("POST", `/v1/lifecycle/${event}`, { body }));
  if (decision?.outcome === "ignored") notify(`Ignored while ${decision.state}: ${decision.message}`);
}

export function start() {
  $("#restart").onclick = () => attempt(restart);
  $("#resume").onclick = async () => {
    if (await confirm("Call the restart off?", "Call it off", "The gateway goes on as it is.")) await ask("resume");
  };
  $("#stop").onclick = async () => {
    if (await confirm("Stop the gateway?", "Stop", "Turns that run are interrupted and kept, what waits is kept, and all goes on with the next start. This page cannot start it again.")) await ask("stop");
  };
  new ResizeObserver(redraw).observe($("#plot"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

// every runs what again and again, never twice at once.
export async function every(ms, what) {
  for (;;) {
    await what().catch(() => {});
    await sleep(ms);
  }
}
