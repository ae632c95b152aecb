// The peaks of a recording for its waveform, in bounded memory: a file of hours is never decoded as a whole.

export const BINS = 1000;
const SLICE = 4 << 20; // bytes of PCM that are looked at together
const MP3_SLICE = 1 << 20; // about a minute, decoded on its own: an MP3 can be entered at any frame
const WHOLE_SECONDS = 300; // a file of another kind is decoded as a whole up to this length, 115 MB at 48 kHz stereo
const WHOLE_BYTES = 60e6;
const RATE = 8000; // Hz; peaks need no more

/** Peaks from 0 to 1, `BINS` of them over the whole recording; null where they can't be had within the bounds: then
    the waveform shows the spans of speech alone. duration: in seconds, as the player says it. */
export async function peaksOf(file, duration, signal) {
  try {
    const wav = await wavLayout(file);
    if (wav) return await pcmPeaks(file, wav, signal);
    if (/\.mp3$/i.test(file.name) || file.type === "audio/mpeg") return await mp3Peaks(file, signal);
    if (duration <= WHOLE_SECONDS && file.size <= WHOLE_BYTES) return await wholePeaks(file);
  } catch {
    signal.throwIfAborted(); // else: a kind that this browser does not decode
  }
  return null;
}

/** Where the samples of a WAV file lie, and what they are; null for other files. */
async function wavLayout(file) {
  const view = new DataView(await file.slice(0, 1 << 16).arrayBuffer());
  const word = (at) => String.fromCharCode(...[0, 1, 2, 3].map((offset) => view.getUint8(at + offset)));
  if (view.byteLength < 44 || word(0) !== "RIFF" || word(8) !== "WAVE") return null;
  let format;
  for (let at = 12; at + 8 <= view.byteLength; at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) % 2)) {
    if (word(at) === "fmt ") {
      const code = view.getUint16(at + 8, true);
      const kind = code === 0xfffe ? view.getUint16(at + 32, true) : code; // the extensible form names it later
      format = { isFloat: kind === 3, isPcm: kind === 1, frame: view.getUint16(at + 20, true), bits: view.getUint16(at + 22, true) };
    } else if (word(at) === "data") {
      const known = format && ((format.isPcm && [16, 24, 32].includes(format.bits)) || (format.isFloat && format.bits === 32));
      return known ? { ...format, start: at + 8, end: Math.min(file.size, at + 8 + view.getUint32(at + 4, true)) } : null;
    }
  }
  return null;
}

async function pcmPeaks(file, { isFloat, frame, bits, start, end }, signal) {
  const peaks = new Float32Array(BINS);
  const frames = Math.floor((end - start) / frame);
  const high = bits / 8 - 2; // of an integer sample, the two highest bytes are enough
  for (let first = 0; first < frames; first += Math.floor(SLICE / frame)) {
    signal.throwIfAborted();
    const last = Math.min(frames, first + Math.floor(SLICE / frame));
    const view = new DataView(await file.slice(start + first * frame, start + last * frame).arrayBuffer());
    for (let index = first; index < last; index++) {
      const at = (index - first) * frame;
      const value = Math.abs(isFloat ? view.getFloat32(at, true) : view.getInt16(at + high, true) / 32768);
      const bin = Math.floor((index / frames) * BINS);
      if (value > peaks[bin]) peaks[bin] = value;
    }
  }
  return peaks;
}

async function mp3Peaks(file, signal) {
  const parts = []; // peaks of hundredths of a second
  for (let at = 0; at < file.size; at += MP3_SLICE) {
    signal.throwIfAborted();
    parts.push(hundredths(await decode(await file.slice(at, at + MP3_SLICE).arrayBuffer())));
  }
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return reduce(all, BINS);
}

const wholePeaks = async (file) => reduce(await decode(await file.arrayBuffer()), BINS);
const hundredths = (samples) => reduce(samples, Math.ceil((samples.length / RATE) * 100));

/** The first channel at 8 kHz: a context's decoder resamples to the context's rate. */
async function decode(bytes) {
  return (await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes)).getChannelData(0);
}

function reduce(samples, bins) {
  const peaks = new Float32Array(bins);
  for (let index = 0; index < samples.length; index++) {
    const bin = Math.floor((index / samples.length) * bins);
    const value = Math.abs(samples[index]);
    if (value > peaks[bin]) peaks[bin] = value;
  }
  return peaks;
}
