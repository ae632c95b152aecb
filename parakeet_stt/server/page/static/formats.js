// The files that a transcript is downloaded as, written as the service writes them. No I/O, no document.

import { calledBy, textOf } from "./words.js";

export const FORMATS = {
  txt: { type: "text/plain", write: (transcript) => toText(transcript) },
  srt: { type: "application/x-subrip", write: (transcript) => toSrt(transcript) },
  vtt: { type: "text/vtt", write: (transcript) => toVtt(transcript) },
  json: { type: "application/json", write: (transcript) => toJson(transcript) },
};

/** The bare text; where speakers are told apart, a line for each turn, which begins with who speaks. */
export function toText({ words, segments, names }) {
  if (!segments.some(({ speaker }) => speaker)) return `${textOf(words)}\n`;
  const turns = [];
  for (const { speaker, text } of segments) {
    const last = turns.at(-1);
    if (last?.speaker === speaker) last.text += ` ${text}`;
    else turns.push({ speaker, text });
  }
  return turns.map(({ speaker, text }) => `${calledBy(speaker, names)}: ${text}\n`).join("");
}

/** SubRip: numbered cues. segments: with start and end in seconds, text, and speaker where there is one. */
function toSrt({ segments, names }) {
  const called = ({ speaker }) => (speaker ? `${calledBy(speaker, names)}: ` : "");
  return segments.map((one, index) => `${index + 1}\n${times(one, ",")}\n${called(one)}${one.text}\n\n`).join("");
}

/** WebVTT (https://www.w3.org/TR/webvtt1/): cues whose text is escaped, voice spans where there are speakers. */
function toVtt({ segments, names }) {
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const voice = ({ speaker }) => (speaker ? `<v ${escape(names[speaker] || speaker)}>` : "");
  return "WEBVTT\n\n" + segments.map((one) => `${times(one, ".")}\n${voice(one)}${escape(one.text)}\n\n`).join("");
}

/** OpenAI's verbose_json, and the words' probabilities; where there are speakers, the segments of its diarized_json. */
function toJson({ language, duration, words: said, segments: parts, names }) {
  const named = (one) => (one.speaker ? { ...one, speaker: names[one.speaker] || one.speaker } : one);
  const second = (one) => (one.second_speaker ? { ...one, second_speaker: names[one.second_speaker] || one.second_speaker } : one);
  const [words, segments] = [said.map(named).map(second), parts.map(named)];
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
    if (!next || next.speaker !== word.speaker || /[.?!…]$/.test(word.word) || next.start - word.end > 2) {
      segments.push({ id: segments.length, start: open[0].start, end: word.end, text: textOf(open), ...(word.speaker && { speaker: word.speaker }) });
      open = [];
    }
  });
  return segments;
}

/** The file's name without its ending, and with another. */
export const named = (name, ending) => `${name.replace(/\.[^./\\]{1,5}$/, "").replace(/.*[/\\]/, "")}.${ending}`;
