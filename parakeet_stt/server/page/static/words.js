// Words and what follows from them: probabilities, paragraphs, spans of speech. No I/O, no document.

export const LOW = 0.5; // a word of a lower probability is marked
const SENTENCE_END = /[.?!…]["'”’)\]]*$/;
const HAS_SOUND = /[\p{L}\p{N}]/u;

/** The words of an event, each with the probability that the model gave it: the product of its tokens', without
    punctuation, which nobody hears. */
export function wordsOf(event) {
  const tokens = event.logprobs ?? [];
  let at = 0;
  return event.words.map(({ word, start, end }) => {
    let text = "";
    let logprob = 0;
    while (at < tokens.length && text.trimStart().length < word.length) {
      const token = tokens[at++];
      text += token.token;
      if (HAS_SOUND.test(token.token)) logprob += token.logprob;
    }
    return { word, start, end, probability: Math.round(Math.exp(logprob) * 1000) / 1000 };
  });
}

/** Whether a paragraph begins with a word, after one of `count` words that ends with `previous`. */
export function startsParagraph(previous, word, count) {
  const pause = word.start - previous.end;
  return pause > 4 || count >= 160 || (SENTENCE_END.test(previous.word) && (pause > 1.5 || count >= 55));
}

/** The spans [start, end) in seconds in which somebody speaks: words with less than `pause` seconds between them. */
export function speechSpans(words, pause = 0.5) {
  const spans = [];
  for (const { start, end } of words) {
    const last = spans.at(-1);
    if (last && start - last[1] < pause) last[1] = Math.max(last[1], end);
    else spans.push([start, end]);
  }
  return spans;
}

/** Index of the last word that has begun at this time; -1 before the first. */
export function wordAt(words, seconds) {
  let low = 0;
  let high = words.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (words[middle].start <= seconds) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** The labels of those who speak, in the order of their first words; none where speakers are not told apart. */
export const speakersOf = (words) => [...new Set(words.map(({ speaker }) => speaker).filter(Boolean))];

/** What is written for a speaker: the name that the reader gave, or `Speaker A`. names: by label. */
export function calledBy(label, names = {}) {
  const name = names[label] || label;
  return [...name].length === 1 ? `Speaker ${name}` : name;
}

export const textOf = (words) => words.map(({ word }) => word).join(" ");

/** 1:02:03, or 2:03 below an hour. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const padded = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${padded}` : `${minutes}:${padded}`;
}

/** 12 hours, 90 minutes, 1000 seconds: the largest unit that it is a whole number of. */
export function length(seconds) {
  const [unit, each] = [["hours", 3600], ["minutes", 60], ["seconds", 1]].find(([, one]) => seconds % one === 0 || one === 1);
  return `${(seconds / each).toLocaleString("en")} ${unit}`;
}

const UNITS = ["bytes", "kB", "MB", "GB"];
export function size(bytes) {
  const power = Math.min(3, Math.max(0, Math.floor(Math.log10(Math.max(1, bytes)) / 3)));
  const value = bytes / 1000 ** power;
  return `${value >= 10 || power === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[power]}`;
}
