// How the page calls the service: addresses, the key, and errors as sentences.

const KEY = "parakeet-key"; // of this tab only: sessionStorage ends with it
export const address = (path) => new URL(path, document.baseURI).href;
export const events = new EventTarget(); // "key-needed": the service refuses the key, or asks for one

export const getKey = () => sessionStorage.getItem(KEY) ?? "";
export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export const authorization = () => (getKey() ? { authorization: `Bearer ${latin1(getKey())}` } : {});

/** A key's UTF-8 bytes as the characters that a header may hold. */
function latin1(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

/** Why a call failed, as a sentence. away: whether nobody answered. retryAfter: in seconds, if the service says so. */
export class Failure extends Error {
  constructor(message, { status = 0, requestId = "", retryAfter = 0 } = {}) {
    super(message);
    this.status = status;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }

  get away() {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

export const nobody = () => new Failure(`The server at ${location.host} does not answer.`);

/** The failure that an answer tells. header: gives a header of the answer by its name. */
export function toFailure(status, body, header) {
  let message = "";
  try {
    message = JSON.parse(body).error.message;
  } catch {
    message = `The server answered ${status}.`;
  }
  if (status === 401) events.dispatchEvent(new Event("key-needed"));
  const retryAfter = Number(header("retry-after")) || 0;
  return new Failure(message, { status, requestId: header("x-request-id") ?? "", retryAfter });
}

/** The JSON that a route answers. Throws Failure. */
export async function call(path, { method = "GET", body } = {}) {
  let response;
  try {
    response = await fetch(address(path), {
      method,
      cache: "no-store",
      headers: { ...authorization(), ...(body ? { "content-type": "application/json" } : {}) },
      body: body && JSON.stringify(body),
    });
  } catch {
    throw nobody();
  }
  if (!response.ok) throw toFailure(response.status, await response.text(), (name) => response.headers.get(name));
  return response.json();
}

/** Wait until the service is ready, or the signal aborts. */
export async function untilReady(signal) {
  for (;;) {
    await sleep(1500, signal);
    try {
      if ((await fetch(address("readyz"), { cache: "no-store", signal })).ok) return;
    } catch {
      signal?.throwIfAborted(); // else: not yet
    }
  }
}

export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
