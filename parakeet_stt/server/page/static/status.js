// What the service says of itself, asked for now and then. "change" when there is an answer, or none.

import { call } from "./api.js";

const OFTEN = 2000; // milliseconds, while somebody looks at the numbers or nobody answers
const SELDOM = 15_000;

export const status = new EventTarget();
Object.assign(status, { now: null, failure: null, isWatched: false });

/** The service's limits, once they are known. */
export const limits = () => status.now?.limits;

let timer;

/** Ask now, and again later. */
export async function refresh() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      status.now = await call("status");
      status.failure = null;
    } catch (failure) {
      status.failure = failure;
    }
    status.dispatchEvent(new Event("change"));
  }
  clearTimeout(timer);
  if (status.failure?.status === 401) return; // asking again would not help, and would open the dialog again
  timer = setTimeout(refresh, status.isWatched || status.failure ? OFTEN : SELDOM);
}

document.addEventListener("visibilitychange", () => document.hidden || refresh());
