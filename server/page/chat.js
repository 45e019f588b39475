// A conversation with one session.

import { answer, call } from "./api.js";
import { $, attempt, confirm, el, time } from "./dom.js";

const historySize = 30;
let session = "";
let paused = false;
let watching = new AbortController(); // of the session that is shown

const box = () => $("#messages");
const atEnd = () => box().scrollHeight - box().scrollTop - box().clientHeight < 80;
const toEnd = () => { box().scrollTop = box().scrollHeight; };

function add(kind, text, meta) {
  const note = el("span", { className: "meta" }, meta ?? "");
  const words = el("span", {}, text);
  const e = el("div", { className: `message ${kind}` }, words, note);
  box().append(e);
  return {
    set(text, meta, kind) {
      const follow = atEnd();
      words.textContent = text;
      note.textContent = meta ?? "";
      e.className = `message ${kind}`;
      if (follow) toEnd();
    },
    cancel(id) {
      const button = el("button", { type: "button", onclick: () => attempt(() => call("POST", `/v1/turns/${encodeURIComponent(id)}/cancel`)) }, "Cancel");
      e.append(button);
      return button;
    },
  };
}

// turn shows a turn of the session, and its answer as it comes.
async function turn(t, signal) {
  add("user", t.input, time(t.created_at));
  const ended = !["queued", "running"].includes(t.status);
  const message = add(ended ? t.status : "open", t.error || t.output, ended ? `${t.agent} · ${time(t.finished_at)}` : "it waits for its turn");
  if (ended) return;
  const button = message.cancel(t.id);
  for await (const a of answer(t.id, signal)) {
    if (a.away) message.set(a.text, "the gateway is away; this goes on by itself", "open");
    else if (a.status === "completed") message.set(a.text, `${t.agent} · ${time(Date.now())}`, "completed");
    else if (a.error) message.set(a.text ? `${a.text}\n${a.error}` : a.error, `${t.agent} · ${a.status}`, a.status);
    else message.set(a.text, a.why ?? (a.status === "running" ? t.agent : ""), "open");
  }
  button.remove();
}

// show begins with the history of a session.
export async function show(name) {
  watching.abort();
  watching = new AbortController();
  const { signal } = watching;
  session = name;
  $("#where").session.value = name;
  box().replaceChildren();
  if (!name) return;
  const [{ turns }, about] = await Promise.all([
    call("GET", `/v1/turns?session=${encodeURIComponent(name)}&limit=${historySize}`, { signal }),
    call("GET", `/v1/sessions/${encodeURIComponent(name)}`, { signal }).catch(() => null),
  ]);
  if (signal.aborted) return;
  mark(about?.paused ?? false);
  for (const t of turns.reverse()) attempt(() => turn(t, signal));
  toEnd();
}

function mark(isPaused) {
  paused = isPaused;
  $("#pause-session").textContent = paused ? "Resume the session" : "Pause the session";
}

async function send(text) {
  const name = $("#where").session.value.trim();
  if (name !== session) await show(name);
  const agent = $("#where").agent.value;
  const { signal } = watching;
  const key = crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16)).join("");
  const accepted = await call("POST", "/v1/responses", { body: { model: agent, input: text, background: true }, key, session: name });
  attempt(() => turn({ id: accepted.id, input: text, status: "queued", agent, created_at: Date.now() }, signal));
  toEnd();
  return true;
}

// names offers the sessions that were used lately.
export async function names() {
  const { sessions } = await call("GET", "/v1/sessions?limit=50");
  $("#session-names").replaceChildren(...sessions.map((s) => el("option", { value: s.session })));
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
