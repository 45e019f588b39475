// The overview: where the gateway is, how it came there, and what it waits for.

import { call } from "./api.js";
import { $, attempt, confirm, dateTime, el, facts, lasted, notify, since, time, whole } from "./dom.js";
import { open } from "./turns.js";

const maxHops = 100;
let status; // the newest document of the gateway's status
let runs = { turns: [], more: 0 }; // what a restart would wait for
let answered = true;
let farewell; // what the gateway said when it ended the stream
let shown = ""; // what the header says, so that a screen reader hears it once
let last = 0; // the newest hop

export function news(document) {
  answered = true;
  farewell = undefined;
  if (status && document.hop < status.hop && document.boot_id === status.boot_id) return;
  if (document.boot_id !== status?.boot_id && document.hop < last) last = 0; // another process, that counts anew
  status = document;
  show();
}

export function hop(h) {
  if (h.seq <= last) return;
  last = h.seq;
  const list = $("#hops");
  list.prepend(el("li", { className: `to-${h.to}` },
    el("time", { dateTime: h.time, title: dateTime(h.time) }, time(h.time)),
    el("span", {}, h.from && h.from !== h.to ? `${h.from} → ${h.to}` : h.to),
    el("span", { className: "quiet", title: h.from ? `${h.from} lasted so long` : "" }, h.from && h.lasted_ms ? lasted(h.lasted_ms) : ""),
    el("span", { className: "why quiet small" }, [h.event, `by ${h.actor}`, h.reason].filter(Boolean).join(" · ")),
  ));
  while (list.children.length > maxHops) list.lastChild.remove();
  if (status && h.seq > status.hop) {
    const stays = h.from === h.to; // the status that follows knows the rest
    status = { ...status, state: h.to, hop: h.seq, ...(stays ? {} : { since: h.time, deadline: undefined }) };
    show();
  }
}

// shutdown is the last event before a restart or a stop.
export function shutdown(notice) {
  farewell = { at: Date.now(), ...notice };
}

// away and back: nobody answers, and somebody does again.
export function away() {
  answered = false;
  show();
}

export function back() {
  answered = true;
  show();
}

export function running(document) {
  runs = document;
  const rows = runs.turns.map((t) => el("li", {}, el("button", { type: "button", onclick: () => open(t.id) },
    el("span", { className: "who" }, t.session),
    el("span", { className: "quiet" }, `${t.agent} · ${t.lane}`),
    el("span", { className: "since n", title: dateTime(t.started_at) }, since(t.started_at)),
  )));
  $("#runs").replaceChildren(...(rows.length ? rows : [el("li", { className: "empty" }, "Nothing runs.")]));
  $("#runs-more").textContent = runs.more ? `and ${runs.more} more` : "";
  countdown();
}

function show() {
  if (!status) return;
  const { state } = status;
  const said = answered ? state : stopped() ? "Stopped" : farewell ? "Restarting" : "No answer";
  if (said !== shown) {
    shown = said;
    $("#state").textContent = said;
    $("#state").className = `badge ${answered ? state : "away"}`;
    document.title = state === "Running" && answered ? "gateway" : `${said} · gateway`;
    for (const e of document.querySelectorAll("#diagram .here, #diagram .next")) e.classList.remove("here", "next", "passing");
    for (const e of document.querySelectorAll(`#diagram .state-${state}`)) e.classList.add("here", ...(state === "Running" ? [] : ["passing"]));
    for (const e of document.querySelectorAll(`#diagram .from-${state}`)) e.classList.add("next");
  }
  $("#restart").disabled = state !== "Running" || !answered;
  $("#resume").hidden = state !== "Draining";
  $("#stop").disabled = !answered || status.intent === "stop";
  facts($("#facts"), [
    ["Address", `${status.tls ? "https" : "http"}://${status.address}`],
    ["Version", status.version],
    ["Process", `${status.pid}, generation ${status.generation}`],
    ["Boot", status.boot_id],
    ["Restarts by", `${status.respawn_mode} (${status.respawn_reason})`],
    ["State folder", status.state_dir],
    ["Postponed", status.postponed?.join(", ")],
    ["Stuck turns", status.turns.stuck || ""],
  ]);
  tick();
}

// tick keeps up what changes by itself, once a second.
export function tick() {
  if (!status) return;
  $("#since").textContent = `for ${since(status.since)}`;
  [...$("#runs").querySelectorAll(".since")].forEach((e, i) => { e.textContent = since(runs.turns[i].started_at); });
  countdown();
}

const stopped = () => farewell && farewell.restart_expected_ms == null;

// absence says what to expect while nobody answers.
function absence() {
  if (stopped()) return "The gateway has stopped. Everything is kept. This page goes on by itself once it is started again.";
  if (!farewell) return "The gateway does not answer. This page goes on by itself once it does.";
  const left = farewell.at + farewell.restart_expected_ms - Date.now();
  return `The gateway restarts${left > 0 ? `, and is expected back in ${whole(left)}` : ", and takes longer than expected"}. Nothing is lost, and this page goes on by itself.`;
}

function countdown() {
  const box = $("#countdown");
  if (!status) return;
  const left = status.deadline ? new Date(status.deadline) - Date.now() : 0;
  box.hidden = left <= 0 && answered;
  $("#countdown-bar").hidden = left <= 0 || !answered;
  if (!answered) {
    $("#countdown-text").textContent = absence();
    $("#countdown-turns").replaceChildren();
    return;
  }
  if (box.hidden) return;
  const holds = status.state === "Draining" && runs.turns.length > 0;
  const half = status.state !== "Draining" ? "" : status.ready ? " Turns start until the next gateway is prepared." : " The next gateway is prepared, and no turn starts before it runs.";
  $("#countdown-text").textContent = `${status.state} for at most ${whole(left)} more.${half}${holds ? " It waits for" : ""}`;
  const most = new Date(status.deadline) - new Date(status.since);
  $("#countdown-bar").max = most;
  $("#countdown-bar").value = Math.min(most, left);
  $("#countdown-turns").replaceChildren(...(holds ? describe(runs) : []));
}

const describe = ({ turns, more }) => [
  ...turns.map((t) => el("li", {}, `${t.session} (${t.agent}), for ${since(t.started_at)}`)),
  ...(more ? [el("li", {}, `and ${more} more`)] : []),
];

async function restart() {
  const reason = el("input", { name: "reason", maxLength: 200, placeholder: "for the history" });
  const force = el("input", { type: "checkbox" });
  const { turns, has_more: more } = await call("GET", "/v1/turns?status=running&limit=20"); // as it is now
  const n = turns.length;
  const waits = n
    ? [`It would wait for ${n}${more ? " and more" : ""} running turn${n === 1 ? "" : "s"}, up to the drain's deadline. Nothing is lost either way.`, el("ul", {}, ...describe({ turns })),
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
}
