// What changes, from one stream for the whole page.

import { follow } from "./api.js";

// watch calls the handler of each event of GET /v1/events, for ever; `away` and `back` are when nobody answers, and
// when somebody does again.
export async function watch(handlers) {
  for await (const event of follow("/v1/events")) handlers[event.type]?.(event.data);
}

// seldom returns a function that calls what at once, and then at most once in so many milliseconds.
export function seldom(ms, what) {
  let timer;
  let again = false;
  const run = () => {
    again = false;
    timer = setTimeout(() => {
      timer = undefined;
      if (again) run();
    }, ms);
    what();
  };
  return () => {
    if (timer) again = true;
    else run();
  };
}
