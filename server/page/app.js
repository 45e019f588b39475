// The page of the gateway. It is a client of the public API and nothing more: see docs/http.md.

import { call } from "./api.js";
import * as chat from "./chat.js";
import { $, attempt, el } from "./dom.js";
import * as lanes from "./lanes.js";
import { seldom, watch } from "./live.js";
import * as overview from "./overview.js";
import * as turns from "./turns.js";

const views = ["overview", "turns", "chat", "configuration"];
let view = "";

function route() {
  const [name, argument = ""] = location.hash.slice(1).split("/");
  view = views.includes(name) ? name : "overview";
  for (const v of views) $(`#${v}`).hidden = v !== view;
  for (const a of document.querySelectorAll("nav a")) {
    if (a.hash === `#${view}`) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  if (view === "turns") attempt(turns.load);
  if (view === "chat") {
    chat.sessions();
    attempt(() => chat.show(decodeURIComponent(argument) || $("#where").session.value || "main"));
  }
  if (view === "configuration") attempt(configuration);
}

async function configuration() {
  let shown;
  try {
    shown = await call("GET", "/v1/config");
  } catch (error) { // such as that the token is not enough
    $("#config-file").textContent = error.message;
    return;
  }
  const { file, config, origins } = shown;
  $("#config-file").textContent = file ? `From ${file}.` : "There is no file.";
  $("#config").replaceChildren(...[...flat(config)].map(([key, value]) => el("tr", {}, el("td", {}, key), el("td", {}, value), el("td", {}, origins[key] ?? "default"))));
}

// flat yields the keys of a document as people write them, and their values.
function* flat(value, key = "") {
  if (value && typeof value === "object" && !Array.isArray(value)) {
    for (const [name, v] of Object.entries(value)) yield* flat(v, key ? `${key}.${name}` : name);
  } else {
    yield [key, value === "" ? "(not set)" : typeof value === "string" ? value : JSON.stringify(value)];
  }
}

overview.start();
lanes.start();
turns.start();
attempt(chat.start);
addEventListener("hashchange", route);
route();

const renew = seldom(1000, () => view === "turns" && attempt(turns.renew));
attempt(() => watch({
  status: overview.news,
  hop: overview.hop,
  lanes: lanes.news,
  running: overview.running,
  turns: (news) => {
    renew();
    chat.news(news);
  },
  shutdown: overview.shutdown,
  away: overview.away,
  back: () => {
    overview.back();
    renew();
    chat.back();
  },
}));
setInterval(() => {
  overview.tick();
  lanes.tick(view === "overview" && !document.hidden);
}, 1000);
