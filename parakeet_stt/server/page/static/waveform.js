// Draws a recording: its peaks, the spans in which somebody speaks, and how far it has been played. Seeks by pointer
// and keys.

import { h } from "./dom.js";
import { clock } from "./words.js";

const BAR = 2; // CSS pixels, and as many between two
const GAP = 1.5;
const LEAST = 0.035; // of the height: silence is a line of dots
const SPAN_HEIGHT = 0.42; // of a span whose peaks are not known
const KEY_SECONDS = { ArrowLeft: -5, ArrowRight: 5, PageDown: -30, PageUp: 30 };

export class Waveform {
  /** onSeek: called with seconds. */
  constructor(onSeek) {
    this._onSeek = onSeek;
    this._peaks = null;
    this._spans = [];
    this._duration = 0;
    this._time = 0;
    this.canvas = h("canvas", {
      class: "waveform", role: "slider", tabindex: 0, "aria-label": "Position in the recording",
      "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0,
    });
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this._seekTo(event);
    });
    this.canvas.addEventListener("pointermove", (event) => event.buttons && this._seekTo(event));
    this.canvas.addEventListener("keydown", (event) => this._key(event));
    this._resize = new ResizeObserver(() => this._draw());
    this._resize.observe(this.canvas);
    this._scheme = matchMedia("(prefers-color-scheme: dark)");
    this._redraw = () => this._draw();
    this._scheme.addEventListener("change", this._redraw);
  }

  close() {
    this._resize.disconnect();
    this._scheme.removeEventListener("change", this._redraw);
  }

  /** peaks: from peaks.js, or null. spans: [start, end) in seconds. */
  show({ peaks = this._peaks, spans = this._spans, duration = this._duration, time = this._time }) {
    Object.assign(this, { _peaks: peaks, _spans: spans, _duration: duration, _time: time });
    const set = (name, value) => this.canvas.setAttribute(name, value);
    set("aria-valuemax", Math.round(duration));
    set("aria-valuenow", Math.round(time));
    set("aria-valuetext", `${clock(time)} of ${clock(duration)}`);
    this._draw();
  }

  _seekTo(event) {
    const box = this.canvas.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    if (this._duration) this._onSeek(share * this._duration);
  }

  _key(event) {
    const ends = { Home: 0, End: this._duration };
    const to = event.key in ends ? ends[event.key] : this._time + (KEY_SECONDS[event.key] ?? NaN);
    if (Number.isNaN(to)) return;
    event.preventDefault();
    this._onSeek(Math.min(this._duration, Math.max(0, to)));
  }

  _draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    const scale = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * scale)) this.canvas.width = Math.round(width * scale);
    if (this.canvas.height !== Math.round(height * scale)) this.canvas.height = Math.round(height * scale);
    const context = this.canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.canvas);
    const [quiet, speech, played] = ["--wave", "--wave-speech", "--accent"].map((name) => style.getPropertyValue(name));
    const bars = Math.floor(width / (BAR + GAP));
    const top = this._peaks ? Math.max(0.05, this._peaks.reduce((most, one) => Math.max(most, one), 0)) : 1;
    let span = 0;
    for (let bar = 0; bar < bars; bar++) {
      const [from, to] = [(bar / bars) * this._duration, ((bar + 1) / bars) * this._duration];
      while (span < this._spans.length && this._spans[span][1] <= from) span++;
      const speaks = span < this._spans.length && this._spans[span][0] < to;
      const share = this._peaks ? this._peak(bar, bars) / top : speaks ? SPAN_HEIGHT : 0;
      const tall = Math.max(LEAST, Math.sqrt(share) * share ** 0.2) * (height - 4);
      context.fillStyle = this._duration && to <= this._time ? played : speaks ? speech : quiet;
      context.fillRect(bar * (BAR + GAP), (height - tall) / 2, BAR, tall);
    }
    if (this._duration) {
      context.fillStyle = played;
      context.fillRect(Math.min(width - 1.5, (this._time / this._duration) * width), 0, 1.5, height);
    }
  }

  _peak(bar, bars) {
    const [first, last] = [Math.floor((bar / bars) * this._peaks.length), Math.ceil(((bar + 1) / bars) * this._peaks.length)];
    let most = 0;
    for (let index = first; index < last; index++) most = Math.max(most, this._peaks[index]);
    return most;
  }
}
