// A conversation with one session, and the sessions there are.

import { answer, call } from "./api.js";
import { $, attempt, confirm, el, time } from "./dom.js";
import { seldom } from "./live.js";

const historySize = 30;
const mostSessions = 100;
let session = "";
let paused = false;
let watching = new AbortController(); // of the session that is shown
let shown = new Map(); // its turns, by id
let line = []; // those that have not ended, the next one first
let attending; // the signal of what follows them

const box = () => $("#messages");
const atEnd = () => box().scrollHeight - box().scrollTop - box().clientHeight < 80;
const toEnd = () => { box().scrollTop = box().scrollHeight; };
const open = (t) => ["queued", "running"].includes(t.status);
const path = (id) => `/v1/turns/${encodeURIComponent(id)}`;

// exchange is what was said in one turn.
function exchange(t) {
  const words = el("span", {});
  const note = el("span", { className: "meta" });
  const reply = el("div", {}, words, note);
  const cancel = el("button", { type: "button", className: "slim", onclick: () => attempt(() => call("POST", `${path(t.id)}/cancel`)) }, "Cancel");
  const said = (text, at) => el("div", { className: "message user" }, el("span", {}, text), el("span", { className: "meta" }, time(at)));
  const element = el("div", { className: "exchange" }, said(t.input, t.created_at), reply);
  const set = (kind, text, meta) => {
    const follow = atEnd();
    words.textContent = text;
    note.textContent = meta;
    reply.className = `message ${kind}`;
    if (kind === "open") reply.append(cancel);
    else cancel.remove();
    if (follow) toEnd();
  };
  return {
    element, set,
    // end shows how the turn ended.
    end(t) { set(t.status, [t.output, t.error].filter(Boolean).join("\n"), `${t.agent} · ${t.status === "completed" ? "" : `${t.status} · `}${time(t.finished_at)}`); },
    join(text) { reply.before(said(text, Date.now())); },
  };
}

// put shows a turn of the session on the page, and follows it when it has not ended.
function put(t, first) {
  const known = shown.get(t.id);
  if (known) return known;
  const e = exchange(t);
  shown.set(t.id, e);
  if (first) $("#earlier").after(e.element);
  else box().append(e.element);
  if (open(t)) {
    e.set("open", "", t.waiting?.reason ?? (t.status === "running" ? t.agent : "it waits for its turn"));
    line.push({ t, e });
  } else {
    e.end(t);
  }
  return e;
}

// attend follows the open turns one after another, as the session runs them: one connection serves all.
async function attend(signal) {
  if (attending === signal) return;
  attending = signal;
  for (let next; (next = line[0]) && !signal.aborted;) {
    const { t, e } = next;
    try {
      for await (const a of answer(t.id, signal)) {
        if (a.away) e.set("open", a.text, "the gateway is away; this goes on by itself");
        else if (a.status === "queued" || a.status === "running") e.set("open", a.text, a.why ?? t.agent);
      }
      if (!signal.aborted) e.end(await call("GET", path(t.id), { signal }));
    } catch (error) {
      if (signal.aborted) return;
      e.set("failed", "", error.message);
    }
    line = line.filter((other) => other !== next);
  }
  if (attending === signal) attending = undefined;
}

// show turns to a session. One that is there already stays as it is, and what it missed is added.
export const show = (name) => (name === session ? back() : visit(name));

// visit begins with the history of a session.
async function visit(name) {
  watching.abort();
  watching = new AbortController();
  const { signal } = watching;
  session = name;
  shown = new Map();
  line = [];
  $("#where").session.value = name;
  box().replaceChildren($("#earlier"));
  $("#earlier").hidden = true;
  markSessions();
  if (!name) return;
  const [{ turns, has_more: more }, about] = await Promise.all([
    call("GET", history(), { signal }),
    call("GET", `/v1/sessions/${encodeURIComponent(name)}`, { signal }).catch(() => null),
  ]);
  if (signal.aborted) return;
  mark(about?.paused ?? false);
  for (const t of turns.reverse()) put(t);
  $("#earlier").hidden = !more;
  toEnd();
  attend(signal);
}

const history = (before) => `/v1/turns?${new URLSearchParams({ session, limit: historySize, ...(before && { before }) })}`;

async function earlier() {
  const { signal } = watching;
  const { turns, has_more: more } = await call("GET", history(shown.keys().next().value), { signal });
  if (signal.aborted) return;
  const height = box().scrollHeight;
  const older = new Map();
  for (const t of turns) older.set(t.id, put(t, true));
  shown = new Map([...[...older].reverse(), ...shown]);
  box().scrollTop += box().scrollHeight - height;
  $("#earlier").hidden = !more;
}

// news says what turns have become: those of this session may come from somebody else.
export function news({ turns, more }) {
  const mine = turns.filter((t) => t.session === session);
  if (more || mine.some((t) => !shown.has(t.id))) back();
  for (const { id, status } of mine) {
    const waits = line.findIndex(({ t }) => t.id === id);
    if (waits > 0 && !open({ status })) settle(line[waits]);
    if (waits < 0 && shown.has(id) && open({ status })) reopen(id);
  }
  for (const t of turns) if (t.status === "queued" || !known.has(t.session)) used(t.session);
}

async function settle(waiting) {
  const { signal } = watching;
  line = line.filter((other) => other !== waiting);
  await attempt(async () => waiting.e.end(await call("GET", path(waiting.t.id), { signal })));
}

// reopen follows a turn that is tried again.
async function reopen(id) {
  const { signal } = watching;
  const e = shown.get(id);
  if (line.some(({ t }) => t.id === id)) return;
  const t = await attempt(() => call("GET", path(id), { signal }));
  if (!t || signal.aborted || !open(t) || line.some((other) => other.t.id === id)) return;
  line.push({ t, e });
  attend(signal);
}

// back looks for turns that were not told of.
export const back = seldom(1000, () => attempt(async () => {
  const { signal } = watching;
  if (!session || $("#chat").hidden) return;
  const { turns, has_more: more } = await call("GET", history(), { signal });
  if (signal.aborted) return;
  if (more && !turns.some((t) => shown.has(t.id))) return visit(session); // too many to go on from
  const follow = atEnd();
  for (const t of turns.reverse()) {
    if (shown.has(t.id) && open(t)) reopen(t.id);
    put(t);
  }
  if (follow) toEnd();
  attend(signal);
}));

function mark(isPaused) {
  paused = isPaused;
  $("#pause-session").textContent = paused ? "Resume the session" : "Pause the session…";
}

async function send(text) {
  const name = $("#where").session.value.trim();
  if (name !== session) await visit(name);
  const agent = $("#where").agent.value;
  const { signal } = watching;
  const key = crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16)).join("");
  const accepted = await call("POST", "/v1/responses", { body: { model: agent, input: text, background: true }, key, session: name });
  if (signal.aborted) return true;
  if (line.some(({ t }) => t.id === accepted.id && t.input !== text)) shown.get(accepted.id).join(text);
  else put({ id: accepted.id, input: text, status: "queued", agent, created_at: Date.now() });
  toEnd();
  attend(signal);
  return true;
}

let known = new Map(); // the links to the sessions, by name

// sessions lists those that were used lately. The gateway looks through all turns for them, so it is asked seldom.
export const sessions = seldom(10_000, () => attempt(async () => {
  const list = (await call("GET", `/v1/sessions?limit=${mostSessions}`)).sessions;
  $("#session-names").replaceChildren(...list.map((s) => el("option", { value: s.session })));
  known = new Map(list.map((s) => [s.session, link(s.session, [s.running && `${s.running} running`, s.queued && `${s.queued} queued`, s.paused && "paused"].filter(Boolean).join(", ") || `${s.turns} turn${s.turns === 1 ? "" : "s"}`)]));
  $("#sessions").replaceChildren(...known.values());
  markSessions();
  const here = list.find((s) => s.session === session);
  if (here) mark(here.paused);
}));

const link = (name, about) => el("li", {}, el("a", { href: `#chat/${encodeURIComponent(name)}` }, el("span", { className: "who" }, name), el("span", { className: "quiet small" }, about)));

// used puts a session at the head of the list.
function used(name) {
  const li = known.get(name) ?? link(name, "new");
  known.set(name, li);
  $("#sessions").prepend(li);
  if (known.size > 2 * mostSessions) { // those that were not used for longest
    const last = $("#sessions").lastChild;
    for (const [name, li] of known) if (li === last) known.delete(name);
    last.remove();
  }
  markSessions();
}

function markSessions() {
  for (const [name, li] of known) {
    if (name === session) li.firstChild.setAttribute("aria-current", "true");
    else li.firstChild.removeAttribute("aria-current");
  }
}

export async function start() {
  const say = $("#say");
  say.onsubmit = (event) => {
    event.preventDefault();
    const text = say.text.value.trim();
    if (!text || !$("#where").reportValidity()) return;
    say.text.value = "";
    attempt(() => send(text)).then((sent) => { if (!sent) say.text.value = text; });
  };
  say.text.onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    say.requestSubmit();
  };
  $("#where").onsubmit = (event) => event.preventDefault();
  $("#where").session.onchange = (event) => { location.hash = `#chat/${encodeURIComponent(event.target.value.trim())}`; };
  $("#earlier").onclick = () => attempt(earlier);
  const wide = matchMedia("(min-width: 48.01rem)");
  const fold = () => { $("#sessions-fold").open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  $("#pause-session").onclick = () => attempt(async () => {
    if (!session) return;
    if (!paused && !(await confirm(`Pause the session ${session}?`, "Pause it", "What runs goes on. What comes waits until it is resumed."))) return;
    const s = await call("PATCH", `/v1/sessions/${encodeURIComponent(session)}`, { body: { paused: !paused } });
    mark(s.paused);
  });
  const { data } = await call("GET", "/v1/models");
  for (const m of data) {
    $("#where").agent.append(el("option", {}, m.id));
    $("#filter").agent.append(el("option", {}, m.id));
  }
}
