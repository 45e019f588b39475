// Helpers for the page. What users and agents wrote is only ever set as text.

export const $ = (selector) => document.querySelector(selector);

// el makes an element; properties that it has are set, others become attributes.
export function el(tag, properties = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in e) e[name] = value;
    else e.setAttribute(name, value);
  }
  e.append(...children.filter((c) => c != null));
  return e;
}

export const time = (at) => (at ? new Date(at).toLocaleTimeString([], { hour12: false }) : "");
export const dateTime = (at) => (at ? new Date(at).toLocaleString([], { hour12: false }) : "");

// lasted writes milliseconds as people say them.
export function lasted(ms) {
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// whole is lasted for what is still going on: in seconds.
export const whole = (ms) => (ms < 10_000 ? `${Math.max(0, Math.floor(ms / 1000))} s` : lasted(ms));

export const since = (at) => whole(Date.now() - new Date(at));

// facts fills a list of names and values.
export function facts(list, rows) {
  list.replaceChildren(...rows.filter(([, value]) => value !== "" && value != null).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

// sleep waits, or until the signal says to stop.
export function sleep(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });
}

let noticeTimer;

// notify shows what went wrong, for a while.
export function notify(error) {
  const notice = $("#notice");
  notice.textContent = error.message ?? String(error);
  notice.hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { notice.hidden = true; }, 12_000);
}

// attempt runs something that may fail, and says so when it does.
export async function attempt(what) {
  try {
    return await what();
  } catch (error) {
    if (error.name !== "AbortError") notify(error);
    return undefined;
  }
}

// confirm asks, with anything in the dialog's body, and resolves to whether the answer was yes.
export function confirm(title, yes, ...body) {
  const dialog = $("#confirm");
  $("#confirm-title").textContent = title;
  $("#confirm-yes").textContent = yes;
  $("#confirm-body").replaceChildren(...body.map((b) => (typeof b === "string" ? el("p", {}, b) : b)));
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}
