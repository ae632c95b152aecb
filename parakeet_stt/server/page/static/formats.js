// The files that a transcript is downloaded as, written as the service writes them. No I/O, no document.

import { textOf } from "./words.js";

export const FORMATS = {
  txt: { type: "text/plain", write: (transcript) => `${textOf(transcript.words)}\n` },
  srt: { type: "application/x-subrip", write: (transcript) => toSrt(transcript.segments) },
  vtt: { type: "text/vtt", write: (transcript) => toVtt(transcript.segments) },
  json: { type: "application/json", write: (transcript) => toJson(transcript) },
};

/** SubRip: numbered cues. segments: with start and end in seconds, and text. */
function toSrt(segments) {
  return segments.map((one, index) => `${index + 1}\n${times(one, ",")}\n${one.text}\n\n`).join("");
}

/** WebVTT (https://www.w3.org/TR/webvtt1/): cues whose text is escaped. */
function toVtt(segments) {
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return "WEBVTT\n\n" + segments.map((one) => `${times(one, ".")}\n${escape(one.text)}\n\n`).join("");
}

/** OpenAI's verbose_json, and the words' probabilities. */
function toJson({ language, duration, words, segments }) {
  const body = { task: "transcribe", language, duration, text: textOf(words), segments, words };
  return JSON.stringify(body, null, 1);
}

function times({ start, end }, decimal) {
  const first = Math.round(start * 1000);
  return `${stamp(first, decimal)} --> ${stamp(Math.max(Math.round(end * 1000), first + 1), decimal)}`;
}

function stamp(milliseconds, decimal) {
  const pad = (value, digits = 2) => String(value).padStart(digits, "0");
  const seconds = Math.floor(milliseconds / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return `${pad(hours)}:${pad(minutes)}:${pad(seconds % 60)}${decimal}${pad(milliseconds % 1000, 3)}`;
}

/** Segments for words of which the service has not sent any: a file whose transcription broke off. */
export function segmentsOf(words) {
  const segments = [];
  let open = [];
  words.forEach((word, index) => {
    open.push(word);
    const next = words[index + 1];
    if (!next || /[.?!…]$/.test(word.word) || next.start - word.end > 2) {
      segments.push({ id: segments.length, start: open[0].start, end: word.end, text: textOf(open) });
      open = [];
    }
  });
  return segments;
}

/** The file's name without its ending, and with another. */
export const named = (name, ending) => `${name.replace(/\.[^./\\]{1,5}$/, "").replace(/.*[/\\]/, "")}.${ending}`;
