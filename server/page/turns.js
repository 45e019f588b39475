// The list of turns, and one of them.

import { answer, call } from "./api.js";
import { $, attempt, confirm, dateTime, el, facts, lasted, time } from "./dom.js";

const pageSize = 100; // of one request
const portion = 300; // of one screen and what is near it
let turns = []; // newest first
let items = new Map(); // li by id
let more = false;
let room = portion; // how many may be on the page
let hidden = false; // there are more than that
let loading = 0; // the newest request; answers to older ones are dropped

const form = () => new FormData($("#filter"));

function query(before) {
  const f = form();
  const q = new URLSearchParams({ limit: pageSize });
  for (const name of ["status", "session", "agent"]) if (f.get(name)) q.set(name, f.get(name));
  if (before) q.set("before", before);
  return `/v1/turns?${q}`;
}

// load begins the list anew; older adds to it.
export async function load() {
  room = portion;
  const mine = ++loading;
  const got = await call("GET", query());
  if (mine !== loading) return;
  turns = got.turns;
  more = got.has_more;
  show();
}

async function older() {
  if (hidden) {
    room += portion;
    return show();
  }
  room += pageSize;
  const mine = ++loading;
  const got = await call("GET", query(turns.at(-1)?.id));
  if (mine !== loading) return;
  turns.push(...got.turns);
  more = got.has_more;
  show();
}

// renew brings the newest turns up to date and keeps what was listed below them.
export async function renew() {
  if (loading === 0) return;
  const mine = loading;
  const got = await call("GET", query());
  if (mine !== loading) return;
  const fresh = new Set(got.turns.map((t) => t.id));
  const last = got.turns.at(-1);
  const below = got.has_more ? turns.filter((t) => !fresh.has(t.id) && t.created_at <= last.created_at) : [];
  turns = [...got.turns, ...below];
  more = below.length ? more : got.has_more;
  show();
}

const describe = (t) => (t.words ??= [t.id, t.status, t.session, t.input, t.output, t.error].join("\n").toLowerCase());

// show puts as many turns on the page as were scrolled to.
function show() {
  const text = (form().get("text") ?? "").toLowerCase();
  const listed = text ? turns.filter((t) => describe(t).includes(text)) : turns;
  const list = $("#turn-list");
  const next = new Map();
  const children = listed.slice(0, room).map((t) => {
    const key = `${t.status} ${t.runs} ${t.output.length} ${t.waiting?.reason}`;
    let li = items.get(t.id);
    if (li?.dataset.key !== key) {
      const focused = li?.contains(document.activeElement);
      li = item(t);
      li.dataset.key = key;
      if (focused) queueMicrotask(() => li.firstChild.focus());
    }
    next.set(t.id, li);
    return li;
  });
  if (children.some((c, i) => list.children[i] !== c) || list.children.length !== children.length) {
    list.replaceChildren(...(children.length ? children : [el("li", { className: "empty" }, "No such turns.")]));
  }
  items = next;
  hidden = listed.length > children.length;
  $("#turn-count").textContent = `${listed.length}${text ? ` of ${turns.length}` : ""} listed${more ? ", there are older ones" : ""}`;
  $("#more").hidden = !more && !hidden;
}

const item = (t) => el("li", {}, el("button", { type: "button", onclick: () => open(t.id) },
  el("span", { className: `status ${t.status}` }, t.status),
  el("span", { className: "who" }, t.session),
  el("span", { className: "what" }, (t.error || t.output || t.input).slice(0, 200), t.waiting && el("span", { className: "waits" }, t.waiting.reason)),
  el("time", { className: "quiet small", dateTime: t.created_at, title: dateTime(t.created_at) }, time(t.created_at)),
));

let following;

// open shows a turn, and its answer as it comes.
export async function open(id) {
  following?.abort();
  following = new AbortController();
  const { signal } = following;
  const dialog = $("#turn");
  const first = await attempt(() => call("GET", `/v1/turns/${encodeURIComponent(id)}`, { signal }));
  if (!first) return;
  present(first);
  if (!dialog.open) dialog.showModal();
  if (["queued", "running"].includes(first.status)) {
    let { status } = first;
    await attempt(async () => {
      for await (const a of answer(id, signal)) {
        if (a.status === "running" && status !== "running") attempt(async () => present(await call("GET", `/v1/turns/${encodeURIComponent(id)}`, { signal }), true));
        status = a.status ?? status;
        $("#turn-note").textContent = a.away ? "The gateway is away; this goes on by itself." : a.why ?? "";
        $("#turn-output").textContent = a.text;
      }
    });
  }
  if (signal.aborted) return;
  const done = await attempt(() => call("GET", `/v1/turns/${encodeURIComponent(id)}`, { signal }));
  if (done && !signal.aborted) present(done);
}

// present fills the dialog; the answer of a turn that is followed stays as it is.
function present(t, followed) {
  const ran = t.started_at && t.finished_at ? lasted(new Date(t.finished_at) - new Date(t.started_at)) : "";
  facts($("#turn-facts"), [
    ["Status", t.status], ["Waits because", t.waiting?.reason], ["Error", t.error], ["Session", t.session], ["Agent", t.agent], ["Lane", t.lane],
    ["Accepted", dateTime(t.created_at)], ["Started", dateTime(t.started_at)], ["Ended", dateTime(t.finished_at)], ["Took", ran],
    ["Attempt", t.attempt > 1 ? t.attempt : ""], ["Id", t.id],
  ]);
  $("#turn-input").textContent = t.input;
  if (!followed) {
    $("#turn-output").textContent = t.output;
    $("#turn-note").textContent = "";
  }
  $("#turn-cancel").hidden = !["queued", "running"].includes(t.status);
  $("#turn-retry").hidden = !["failed", "cancelled"].includes(t.status);
  $("#turn-cancel").onclick = () => cancel(t);
  $("#turn-retry").onclick = () => attempt(async () => {
    await call("POST", `/v1/turns/${encodeURIComponent(t.id)}/retry`);
    await open(t.id);
  });
  $("#turn-chat").onclick = () => {
    close();
    location.hash = `#chat/${encodeURIComponent(t.session)}`;
  };
}

async function cancel(t) {
  if (!(await confirm("Cancel the turn?", "Cancel the turn", t.status === "running" ? "It runs. Its agent is told to end, and what it said so far is dropped." : "It waits, and will not run."))) return;
  await attempt(() => call("POST", `/v1/turns/${encodeURIComponent(t.id)}/cancel`));
}

export function start() {
  let typing;
  $("#filter").oninput = (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      if (event.target.name !== "text") return attempt(load);
      room = portion;
      return show();
    }, 150);
  };
  $("#filter").onsubmit = (event) => event.preventDefault();
  $("#more").onclick = () => attempt(older);
  new IntersectionObserver(([seen]) => seen.isIntersecting && hidden && older()).observe($("#more"));
  $("#turn .close").onclick = close;
  $("#turn").oncancel = close; // by the Escape key
}

// close at once: the dialog's own event comes late, and would end what was opened meanwhile.
function close() {
  following?.abort();
  $("#turn").close();
}
