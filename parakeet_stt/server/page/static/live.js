// A session of /v1/realtime that outlives its connection: audio without a final text is kept, and sent again.

import { Failure, address, call, nobody, sleep } from "./api.js";

const KEPT_SECONDS = 300; // of audio, at most, for another connection
const LEAD_SECONDS = 3; // of audio before speech is noticed
const PAD_MS = 300; // what the service adds after speech to the end that it names
const PAUSE_MS = 500; // that ends a caption
const LAST_SECONDS = 15; // to wait for the last final
const ENDINGS = {
  1001: "The server is about to end.",
  1008: "The server closed the session: this page did not read.",
  1011: "The session failed on the server.",
  4408: "The session was idle for too long.",
};

/** Events: "open" {id, start, text} as its text grows, "final" {id, start, end, text, delay}, "state" a sentence or "".
    Times in seconds from the first sample. */
export class LiveSession extends EventTarget {
  constructor({ rate, language, keywords }) {
    super();
    this._rate = rate;
    this._asked = { language, keywords };
    this._parts = []; // {start, samples}; start in samples from the first
    this._position = 0; // samples so far
    this._began = Infinity; // when the first sample was captured, as performance.now() has it
    this._base = 0; // where the connection's audio begins, in samples
    this._done = 0; // end of the last final, in samples
    this._items = new Map(); // of this connection: {id, start, end, text}
    this._isReady = false;
    this._isEnding = false;
    this._closed = new AbortController();
  }

  /** Connect for the first time. Throws Failure. */
  async open() {
    await this._connect();
  }

  /** int16 samples of the microphone. */
  push(samples) {
    const part = { start: this._position, samples };
    this._position += samples.length;
    // Parts come late now and then, never early: the earliest says when the first sample was captured.
    this._began = Math.min(this._began, performance.now() - (1000 * this._position) / this._rate);
    this._parts.push(part);
    const open = Math.min(...[...this._items.values()].map(({ start }) => start), this._position - LEAD_SECONDS * this._rate);
    const from = Math.max(this._done, this._isReady ? open : this._done, this._position - KEPT_SECONDS * this._rate);
    while (this._parts.length && this._parts[0].start + this._parts[0].samples.length <= from) this._parts.shift();
    if (this._isReady) this._append(part);
  }

  /** End the session, after the last final text. */
  async finish() {
    this._isEnding = true;
    if (this._isReady) {
      this._send({ type: "input_audio_buffer.commit" });
      const until = performance.now() + 1000 * LAST_SECONDS;
      let [committed, quiet] = [false, 0];
      this.addEventListener("committed", () => (committed = true), { once: true });
      // For a while, since what was committed may be an utterance before the last one.
      while (this._isReady && performance.now() < until && quiet < 6) {
        await sleep(50);
        quiet = committed && !this._items.size ? quiet + 1 : 0;
      }
    }
    this._closed.abort();
    this._socket?.close(1000);
  }

  async _connect() {
    const { language, keywords } = this._asked;
    const transcription = { model: "gpt-4o-transcribe", delay: "low", ...(language && { language }), ...(keywords.length && { keywords }) };
    const session = {
      type: "transcription",
      audio: {
        input: {
          format: { type: "audio/pcm", rate: this._rate },
          transcription,
          turn_detection: { type: "server_vad", prefix_padding_ms: PAD_MS, silence_duration_ms: PAUSE_MS },
        },
      },
    };
    // A key for this session alone: it is checked here, with an answer that a socket would not give a page.
    const { value } = await call("v1/realtime/client_secrets", { method: "POST", body: { session } });
    const url = address("v1/realtime?intent=transcription").replace(/^http/, "ws");
    const socket = new WebSocket(url, ["realtime", `openai-insecure-api-key.${value}`]);
    this._socket = socket;
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = async () => reject(await whyRefused());
    });
    socket.onmessage = ({ data }) => this._receive(JSON.parse(data));
    socket.onclose = ({ code }) => this._lost(code);
    socket.onerror = null;
    this._items.clear();
    this._base = this._parts[0]?.start ?? this._position;
    this._isReady = true;
    this._say("");
    for (const part of this._parts) this._append(part);
  }

  async _lost(code) {
    this._isReady = false;
    this._tell("open", { text: "" });
    if (this._isEnding || this._closed.signal.aborted) return;
    const why = ENDINGS[code] ?? "The connection to the server broke.";
    this._say(`${why} What you say is kept for five minutes, and it goes on when the server is back.`);
    while (!this._isEnding) {
      await sleep(1500);
      try {
        if (!this._isEnding) await this._connect();
        return;
      } catch (failure) {
        if (!(failure instanceof Failure) || failure.away || failure.status === 429) continue;
        this._say(failure.message);
        return;
      }
    }
  }

  _receive(event) {
    const samples = (milliseconds) => this._base + (milliseconds * this._rate) / 1000;
    const item = this._items.get(event.item_id);
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this._items.set(event.item_id, { id: event.item_id, start: samples(event.audio_start_ms), end: 0, text: "" });
        return;
      case "input_audio_buffer.speech_stopped":
        if (item) item.end = samples(event.audio_end_ms);
        return;
      case "input_audio_buffer.committed":
        this.dispatchEvent(new Event("committed"));
        return;
      case "conversation.item.input_audio_transcription.delta":
        if (!item) return;
        item.text += event.delta;
        this._tell("open", { id: item.id, start: item.start / this._rate, text: item.text });
        return;
      case "conversation.item.input_audio_transcription.completed":
      case "conversation.item.input_audio_transcription.failed":
        if (item) this._complete(item, event);
        return;
      case "error":
        this.dispatchEvent(new Event("committed")); // of an empty buffer, at the end: nothing more comes
        if (!this._isEnding) this._say(event.error.message);
    }
  }

  _complete(item, { transcript, error }) {
    this._items.delete(item.id);
    const end = item.end || this._position;
    this._done = Math.max(this._done, end);
    const speechEnd = this._began + (1000 * end) / this._rate - PAD_MS;
    const delay = Math.max(0, performance.now() - speechEnd) / 1000;
    const times = { start: item.start / this._rate, end: end / this._rate };
    this._tell("final", { id: item.id, ...times, text: transcript ?? "", delay, failed: error?.message });
  }

  _append({ samples }) {
    this._send({ type: "input_audio_buffer.append", audio: base64(samples) });
  }

  _send(event) {
    if (this._socket.readyState === WebSocket.OPEN) this._socket.send(JSON.stringify(event));
  }

  _tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  _say(sentence) {
    this._tell("state", sentence);
  }
}

/** A browser does not say why a socket was refused: the service's numbers do. */
async function whyRefused() {
  try {
    const { sessions, limits } = await call("status");
    if (sessions >= limits.sessions) return new Failure(`All ${limits.sessions} live sessions of this server are taken.`, { status: 429 });
    return new Failure("The server refused the session.", { status: 503 });
  } catch {
    return nobody();
  }
}

/** Samples as base64 of int16 in little-endian order, which every browser's machine has. */
function base64(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  return btoa(String.fromCharCode(...bytes));
}
