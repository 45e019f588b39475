// The gateway's public API. A restart shows here only as a wait: what was cut off is asked for again, from where it
// was, and what makes a turn carries a key, so that it makes no second one.

import { $, sleep } from "./dom.js";

const tokenKey = "gateway-token";
let asking; // the dialog that is open, as a promise

const headers = () => {
  const token = sessionStorage.getItem(tokenKey);
  return token ? { Authorization: `Bearer ${token}` } : {};
};

// wantToken asks for the token, once for all who miss it.
function wantToken(wrong) {
  asking ??= new Promise((done) => {
    const dialog = $("#ask-token");
    if (wrong) $("#token-why").textContent = "That was not it. It is auth.token of the gateway's configuration, or that of one of its auth.clients.";
    $("#token").value = "";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(tokenKey, $("#token").value);
      asking = undefined;
      done();
    }, { once: true });
  });
  return asking;
}

// APIError is a refusal, in the gateway's words.
export class APIError extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the gateway answered ${status}`);
    this.status = status;
    this.code = body?.error?.code;
  }
}

async function ask(method, path, { body, signal, accept, last, key, session } = {}) {
  for (;;) {
    const sent = headers();
    const response = await fetch(path, {
      method, signal, cache: "no-store",
      headers: {
        ...sent,
        ...(accept && { Accept: accept }),
        ...(last != null && { "Last-Event-ID": String(last) }),
        ...(key && { "Idempotency-Key": key }),
        ...(session && { "X-Session-Id": session }),
        ...(body !== undefined && { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (response.status === 401) {
      await wantToken("Authorization" in sent);
      continue;
    }
    if (response.ok) return response;
    throw new APIError(response.status, await response.json().catch(() => null));
  }
}

const passes = (error) => !(error instanceof APIError) || error.status === 503 || error.status === 429;

// call makes one request. One that changes nothing, or carries a key, is sent again while the gateway is away.
export async function call(method, path, options = {}) {
  const patient = method === "GET" || options.key;
  for (let wait = 200; ; wait = Math.min(2 * wait, 3000)) {
    try {
      const response = await ask(method, path, options);
      return response.status === 204 ? null : await response.json();
    } catch (error) {
      if (!patient || !passes(error) || error.name === "AbortError") throw error;
      await sleep(wait, options.signal);
      options.signal?.throwIfAborted();
    }
  }
}

// stream yields the server-sent events of one response.
async function* stream(path, options) {
  const response = await ask("GET", path, { ...options, accept: "text/event-stream" });
  if (response.status === 204) {
    yield { type: "over" };
    return;
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    for (let end; (end = buffer.indexOf("\n\n")) >= 0; buffer = buffer.slice(end + 2)) {
      const event = { type: "message", id: "", data: "" };
      for (const line of buffer.slice(0, end).split("\n")) {
        const [, field, rest] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (field === "event") event.type = rest;
        else if (field === "id") event.id = rest;
        else if (field === "data") event.data += rest;
      }
      if (event.data) yield { type: event.type, id: event.id, data: JSON.parse(event.data) };
    }
  }
}

// A browser keeps at most six connections to one gateway, for all tabs together. So a stream ends when nobody has seen
// the page for a while, and goes on when somebody does.
const unseen = 5000;

// whileSeen returns a signal that aborts with the other one, or once the page is out of sight.
function whileSeen(signal) {
  const connection = new AbortController();
  const end = () => connection.abort();
  let timer;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(end, unseen);
  };
  look();
  document.addEventListener("visibilitychange", look);
  signal?.addEventListener("abort", end);
  const over = () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
    signal?.removeEventListener("abort", end);
    end();
  };
  return { signal: connection.signal, over };
}

const seen = (signal) => new Promise((done) => {
  const look = () => {
    if (document.hidden && !signal?.aborted) return;
    document.removeEventListener("visibilitychange", look);
    signal?.removeEventListener("abort", look);
    done();
  };
  document.addEventListener("visibilitychange", look);
  signal?.addEventListener("abort", look);
  look();
});

// follow yields the events of a stream for ever, or until one is `over`, over any number of connections: each goes on
// after the last event of the one before. `away` and `back` say that nobody answers, and that somebody does again;
// `back` also that the page was out of sight.
export async function* follow(path, { signal, last } = {}) {
  let away = false;
  let gone = false;
  for (let wait = 200; ; wait = Math.min(2 * wait, 2000)) {
    await seen(signal);
    const connection = whileSeen(signal);
    try {
      for await (const event of stream(path, { signal: connection.signal, last })) {
        if (away || gone) yield { type: "back" };
        away = gone = false;
        wait = 200;
        if (event.id) last = event.id;
        yield event;
        if (event.type === "over") return;
        if (event.type === "shutdown") break;
      }
    } catch (error) {
      if (signal?.aborted) return;
      if (connection.signal.aborted) {
        gone = true;
        continue;
      }
      if (!passes(error)) throw error;
    } finally {
      connection.over();
    }
    if (signal?.aborted) return;
    if (!away) yield { type: "away" };
    away = true;
    await sleep(wait, signal);
  }
}

const ends = new Set(["completed", "failed", "cancelled"]);

// answer yields what becomes of a turn until it has ended: each time all of the text so far, its status, and why it
// waits.
export async function* answer(id, signal) {
  let text = "";
  for await (const event of follow(`/v1/turns/${encodeURIComponent(id)}/events`, { signal, last: 0 })) {
    switch (event.type) {
      case "started":
        text = "";
        yield { status: "running", text };
        break;
      case "delta":
        text += event.data.text;
        yield { status: "running", text };
        break;
      case "interrupted":
      case "requeued":
        text = ""; // it begins anew
        yield { status: "queued", text, why: "it was interrupted and runs again" };
        break;
      case "waiting":
        yield { status: "queued", text, why: event.data.reason ?? event.data.message ?? "it waits for its turn" };
        break;
      case "away":
        yield { away: true, text };
        break;
      case "over":
        return;
      default:
        if (!ends.has(event.type)) break;
        if (event.type === "completed" && event.data.text != null) text = event.data.text;
        yield { status: event.type, text, error: event.type === "completed" ? "" : event.data.text };
        return;
    }
  }
}
