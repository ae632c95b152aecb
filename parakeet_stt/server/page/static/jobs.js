// The queue of files: what each is doing, and what is known of it. A job that breaks off keeps its words.

import { Failure, sleep, untilReady } from "./api.js";
import { segmentsOf } from "./formats.js";
import * as store from "./store.js";
import { transcribe } from "./upload.js";
import { size, wordsOf } from "./words.js";

const AT_ONCE = 2; // the service decodes files of all callers together
const MAX_BREAKS = 3; // times that a job may break off without a word more
export const RUNNING = new Set(["uploading", "transcribing", "away"]);

/** One file. state: waiting, uploading, transcribing, away (the server is), done, failed, cancelled. names: which the
    reader gave to speakers, by label. */
export class Job {
  constructor(fields) {
    Object.assign(this, { words: [], segments: [], before: [], share: 0, note: "", duration: 0, names: {} }, fields);
  }

  /** All words that were final, also those that a broken connection brought and that come again only now. */
  get shown() {
    const last = this.words.at(-1)?.end ?? 0;
    return this.before.length ? [...this.words, ...this.before.filter(({ start }) => start >= last)] : this.words;
  }

  get isOpen() {
    return this.state === "waiting" || RUNNING.has(this.state);
  }

  /** What is kept in the browser. */
  get record() {
    const { id, name, size: bytes, date, words, segments, duration, language, took, peaks, audio, names } = this;
    return { id, name, size: bytes, date, words, segments, duration, language, took, peaks, audio, names };
  }

  /** As the formats take it. */
  get transcript() {
    const { language = "english", duration, names } = this;
    const words = this.shown;
    const isWhole = this.state === "done";
    return {
      language,
      duration: isWhole ? duration : (words.at(-1)?.end ?? 0),
      words,
      segments: isWhole ? this.segments : segmentsOf(words),
      names,
    };
  }
}

export class Jobs extends EventTarget {
  constructor({ options, limits }) {
    super();
    this.list = [];
    this._count = 0; // of files that were added
    this._options = options; // () → language and keywords
    this._limits = limits; // () → the service's limits, if they are known
  }

  async restore() {
    const kept = (await store.loadFiles()).map((record) => new Job({ ...record, state: "done" }));
    this.list.push(...kept);
    this._changed();
  }

  /** Add files to the queue. Returns the first of their jobs. */
  add(files) {
    const added = files.map((file) => {
      const fields = { id: `${Date.now()}-${Math.random()}`, name: file.name, size: file.size, order: this._count++ };
      return new Job({ ...fields, audio: file, date: Date.now(), state: "waiting", options: this._options() });
    });
    this.list.unshift(...added);
    this._changed();
    this._start();
    return added[0];
  }

  cancel(job) {
    job.state = "cancelled";
    job.error = undefined;
    job.abort?.abort(new DOMException("cancelled", "AbortError"));
    this._changed(job);
    this._start();
  }

  retry(job) {
    Object.assign(job, { state: "waiting", error: undefined, note: "", before: job.shown, words: [], share: 0 });
    this._changed(job);
    this._start();
  }

  remove(job) {
    this.list.splice(this.list.indexOf(job), 1);
    store.removeFile(job.id);
    this._changed();
  }

  /** Name a speaker; "" for none. isKept: whether to keep it in the browser now. */
  name(job, label, name, isKept) {
    job.names = { ...job.names, [label]: name };
    if (isKept && job.state === "done") store.saveFile(job.record);
  }

  /** Try those again that were refused for their key. */
  retryRefused() {
    for (const job of this.list.filter(({ error }) => error?.status === 401)) this.retry(job);
  }

  _changed(job) {
    this.dispatchEvent(new CustomEvent("change", { detail: job }));
  }

  _start() {
    const waiting = this.list.filter(({ state }) => state === "waiting").sort((one, other) => one.order - other.order);
    const free = AT_ONCE - this.list.filter(({ state }) => RUNNING.has(state)).length;
    for (const job of waiting.slice(0, Math.max(0, free))) this._run(job);
  }

  async _run(job) {
    job.abort = new AbortController();
    job.breaks = 0;
    job.state = "uploading"; // before anything else is started
    try {
      const limit = this._limits()?.upload_bytes;
      if (limit && job.size > limit) {
        throw new Failure(`The file has ${size(job.size)}, and this server takes at most ${size(limit)}.`, {
          status: 413,
        });
      }
      while (!(await this._try(job)));
      job.state = "done";
      job.before = [];
      await store.saveFile(job.record);
    } catch (error) {
      if (job.state !== "cancelled") {
        job.state = "failed";
        job.error = error instanceof Failure ? error : new Failure(`The page failed: ${error.message}`);
      }
    } finally {
      this._changed(job);
      this._start();
    }
  }

  /** Send a file once. Returns whether all of it is transcribed; false after a wait, if it is to be sent again. */
  async _try(job) {
    const { signal } = job.abort;
    const known = job.shown.length;
    const began = performance.now();
    Object.assign(job, { state: "uploading", before: job.shown, words: [], segments: [], share: 0, note: "" });
    this._changed(job);
    try {
      await transcribe(job.audio, {
        ...job.options,
        signal,
        onUpload: (share) => {
          job.share = share;
          if (share === 1 && job.state === "uploading") job.state = "transcribing";
          this._changed(job);
        },
        onEvent: (event) => this._take(job, event),
      });
      job.took = (performance.now() - began) / 1000;
      return true;
    } catch (error) {
      signal.throwIfAborted();
      if (error.status === 429) {
        const seconds = error.retryAfter || 5;
        Object.assign(job, { state: "away", note: `The server is busy. Another try in ${seconds} s.` });
        this._changed(job);
        await sleep(1000 * seconds, signal);
        return false;
      }
      job.breaks = job.shown.length > known ? 1 : job.breaks + 1;
      if (!error.away || job.breaks > MAX_BREAKS) throw error;
      const kept = job.shown.length;
      const words = kept ? ` The ${kept} words so far are kept.` : "";
      Object.assign(job, { state: "away", note: `${error.message}${words} It goes on when the server is back.` });
      this._changed(job);
      await untilReady(signal);
      return false;
    }
  }

  _take(job, event) {
    if (event.type === "transcript.text.delta") {
      job.state = "transcribing";
      job.heard = wordsOf(event);
      if (event.segment_id) return; // who says it comes next
      job.words.push(...job.heard);
    } else if (event.type === "transcript.text.segment") {
      job.segments.push(event);
      job.words.push(...job.heard.map((word) => ({ ...word, speaker: event.speaker })));
    } else if (event.type === "transcript.text.done") {
      const { segments = job.segments, words = [], duration, language } = event;
      words.forEach(({ second_speaker: second }, index) => second && (job.words[index].second_speaker = second));
      Object.assign(job, { segments, duration, language });
    }
    this._changed(job);
  }
}
