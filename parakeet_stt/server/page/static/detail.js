// One recording: its player, its waveform, its words, and what can be taken from it.

import { copy, download, h, setText } from "./dom.js";
import { FORMATS, named, toText } from "./formats.js";
import { peaksOf } from "./peaks.js";
import { Speakers } from "./speakers.js";
import { saveFile } from "./store.js";
import { Transcript } from "./transcript.js";
import { Waveform } from "./waveform.js";
import { LOW, calledBy, clock, speechSpans } from "./words.js";

const SPEEDS = [1, 1.25, 1.5, 2, 0.75];

export class Detail {
  /** element: to fill. jobs: the queue. */
  constructor(element, jobs, job) {
    this.job = job;
    this._jobs = jobs;
    this._abort = new AbortController();
    this._audio = h("audio", { preload: "metadata" });
    this._waveform = new Waveform((seconds) => this._seek(seconds));
    this._transcript = new Transcript({
      onSeek: (seconds, { stay = false } = {}) => this._seek(seconds, !stay),
      onToggle: () => this._toggle(),
      nameOf: (label) => calledBy(label, job.names),
    });
    this._speakers = new Speakers((label, name, isKept) => {
      jobs.name(job, label, name, isKept);
      this._transcript.rename();
    });
    this._build(element);
    this._load();
    this.update();
  }

  close() {
    this._abort.abort();
    this._audio.pause();
    this._audio.removeAttribute("src");
    this._audio.load(); // gives the decoder's memory back
    if (this._address) URL.revokeObjectURL(this._address);
    this._waveform.close();
    this._transcript.close();
  }

  update() {
    const { job } = this;
    const words = job.shown;
    setText(this._meta, describe(job));
    setText(this._status, job.state === "done" ? "" : sentence(job));
    this._status.classList.toggle("problem", job.state === "failed");
    this._actions.hidden = !words.length;
    this._again.hidden = job.isOpen || job.state === "done" || !job.audio;
    this._legend.hidden = !words.some(({ probability }) => probability < LOW);
    this._mute.hidden = !this._isMute || job.state === "failed";
    this._player.hidden = Boolean(this._isMute);
    const isSilent = job.state === "done" && !words.length;
    this._empty.hidden = !isSilent;
    if (words.length !== this._spanned) {
      this._spanned = words.length;
      this._waveform.show({ spans: speechSpans(words), duration: this._duration });
    }
    this._speakers.show(words, job.names);
    this._transcript.show(words);
    this._tick();
  }

  /** Length of the recording, as far as it is known; else 0. */
  get seconds() {
    return this._duration;
  }

  get _duration() {
    const { duration } = this._audio;
    return (Number.isFinite(duration) && duration) || this.job.duration || 0;
  }

  _build(element) {
    const { job } = this;
    const audio = this._audio;
    this._meta = h("p", { class: "small meta" });
    this._status = h("p", { class: "small status", role: "status" });
    this._again = h("button", { type: "button", onclick: () => this._jobs.retry(job) }, "Try again");
    this._legend = h("p", { class: "small legend" }, h("span", { class: "low" }, "Dotted"),
      ` words: the model gave them a probability below ${LOW}.`);
    this._empty = h("p", { class: "small" }, "No speech was found in this recording.");
    const copying = h("button", { type: "button", onclick: () => copy(copying, toText(job.transcript).trimEnd()) }, "Copy");
    const saving = Object.entries(FORMATS).map(([ending, { type, write }]) =>
      h("button", {
        type: "button", title: `Download as ${ending}`, "aria-label": `Download as ${ending}`, "data-format": ending,
        onclick: () => download(named(job.name, ending), type, write(job.transcript)),
      }, ending));
    this._actions = h("div", { class: "actions" }, copying,
      h("span", { class: "group", role: "group", "aria-label": "Download" }, saving));
    this._play = h("button", { type: "button", class: "play", "aria-label": "Play", disabled: true, onclick: () => this._toggle() });
    this._time = h("span", { class: "time" });
    this._speed = h("button", { type: "button", class: "quiet speed", "aria-label": "Speed 1", onclick: () => this._faster() }, "1×");
    this._player = h("div", { class: "player" }, this._play, this._waveform.canvas, this._time, this._speed, audio);
    const reason = job.audio ? "This browser can’t play this kind of file." : "The browser kept no sound of this recording: it is too large.";
    this._mute = h("p", { class: "small said", hidden: true }, reason);
    element.replaceChildren(
      h("div", { class: "head" }, h("div", {}, h("h2", { title: job.name }, job.name), this._meta), this._actions),
      this._player, this._mute, h("div", { class: "said" }, this._status, this._again), this._empty,
      this._speakers.element, this._transcript.element, this._legend,
    );
    for (const kind of ["play", "pause", "ended"]) audio.addEventListener(kind, () => this._playing());
    for (const kind of ["timeupdate", "seeked"]) audio.addEventListener(kind, () => this._tick());
  }

  /** The player's file, and its peaks. */
  _load() {
    const { job, _audio: audio } = this;
    if (!job.audio) {
      this._isMute = true;
      return;
    }
    this._address = URL.createObjectURL(job.audio);
    audio.addEventListener("loadedmetadata", async () => {
      this._play.disabled = false;
      this._tick();
      if (job.peaks === undefined) {
        const { signal } = this._abort;
        job.peaks = await peaksOf(job.audio, this._duration, signal).catch(() => undefined);
        if (job.peaks && job.state === "done") saveFile(job.record);
        if (signal.aborted) return;
      }
      this._waveform.show({ peaks: job.peaks ?? null, duration: this._duration });
    }, { once: true });
    audio.addEventListener("error", () => {
      this._isMute = true;
      this.update();
    });
    audio.src = this._address;
  }

  _seek(seconds, play = false) {
    if (this._play.disabled) return;
    this._audio.currentTime = seconds;
    if (play && this._audio.paused) this._audio.play().catch(() => {});
    this._tick();
  }

  _toggle() {
    if (this._play.disabled) return;
    if (this._audio.paused) this._audio.play().catch(() => {});
    else this._audio.pause();
  }

  _faster() {
    const speed = SPEEDS[(SPEEDS.indexOf(this._audio.playbackRate) + 1) % SPEEDS.length];
    this._audio.playbackRate = speed;
    setText(this._speed, `${speed}×`);
    this._speed.setAttribute("aria-label", `Speed ${speed}`);
  }

  _playing() {
    const plays = !this._audio.paused && !this._audio.ended;
    this._play.classList.toggle("on", plays);
    this._play.setAttribute("aria-label", plays ? "Pause" : "Play");
    const follow = () => {
      if (this._audio.paused || this._abort.signal.aborted) return;
      this._tick();
      requestAnimationFrame(follow);
    };
    if (plays) follow();
  }

  _tick() {
    const time = this._audio.currentTime;
    setText(this._time, `${clock(time)} / ${clock(this._duration)}`);
    this._waveform.show({ time, duration: this._duration });
    if (time > 0) this._transcript.playAt(time, !this._audio.paused);
  }
}

function describe(job) {
  const parts = [];
  if (job.duration) parts.push(clock(job.duration));
  const count = job.shown.length;
  if (count) parts.push(`${count.toLocaleString("en")} ${count === 1 ? "word" : "words"}`);
  if (job.took) {
    const seconds = job.took < 10 ? job.took.toFixed(1) : Math.round(job.took);
    const speed = Math.round(job.duration / job.took);
    parts.push(`transcribed in ${seconds} s${speed > 1 ? `, ${speed} × real time` : ""}`);
  }
  return parts.join(" · ");
}

/** What a job is doing, or why it is not. */
export function sentence(job) {
  const last = job.shown.at(-1)?.end;
  switch (job.state) {
    case "waiting": return "Waiting";
    case "uploading": return `Uploading, ${Math.round(100 * job.share)} %`;
    case "transcribing": return last ? `Transcribing, ${clock(last)} so far` : "Transcribing";
    case "away": return job.note;
    case "cancelled": return "Cancelled";
    case "failed": {
      const id = job.error.requestId && ` (request ${job.error.requestId})`;
      const kept = job.shown.length ? ` The ${job.shown.length} words before that are kept.` : "";
      return `${job.error.message}${kept}${id}`;
    }
    default: return `${clock(job.duration)} · ${job.words.length.toLocaleString("en")} words`;
  }
}
