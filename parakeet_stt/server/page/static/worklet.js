// Runs where the browser captures sound: gives it as int16 in parts of 40 ms, each with its peak.

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this._part = new Int16Array(Math.round(sampleRate * 0.04));
    this._count = 0;
    this._peak = 0;
  }

  /** Called by the browser with 128 samples. */
  process([[channel]]) {
    for (const value of channel ?? []) {
      this._part[this._count++] = Math.max(-1, Math.min(1, value)) * 32767;
      this._peak = Math.max(this._peak, Math.abs(value));
      if (this._count === this._part.length) {
        this.port.postMessage({ samples: this._part.slice(), peak: this._peak });
        this._count = 0;
        this._peak = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
