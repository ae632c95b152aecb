// Shows words as paragraphs that can be read, clicked and followed. A paragraph is plain text: hours of words are few
// elements. Which word is under the pointer is found from the place in the text, and the word that is played is lit up
// by a highlight (https://www.w3.org/TR/css-highlight-api-1/), which changes no element.

import { $, h, setText } from "./dom.js";
import { LOW, clock, startsParagraph, textOf, wordAt } from "./words.js";

const MOVES = { ArrowLeft: -1, ArrowRight: 1 };
const COLOURS = 4; // of speakers, which style.css has
const highlights = globalThis.CSS?.highlights; // a browser without them lights nothing up

export class Transcript {
  /** onSeek: called with seconds when somebody wants to hear a word. onToggle: to play or pause. nameOf: what to write
      for a speaker's label. */
  constructor({ onSeek, onToggle, nameOf }) {
    this._onSeek = onSeek;
    this._onToggle = onToggle;
    this._nameOf = nameOf;
    this._words = [];
    this._speakers = []; // in the order of their first words
    this._paragraphs = []; // {element, text, who, speaker, first, count}
    this._current = -1;
    this._scrolledAt = 0;
    this.element = h("div", {
      class: "transcript", tabindex: 0, role: "group",
      "aria-label": "Transcript. Left and right go from word to word, Enter plays from there, Space pauses.",
      onclick: (event) => this._click(event), onkeydown: (event) => this._key(event),
      onpointermove: (event) => this._hover(event), onpointerleave: () => this._unhover(),
    });
    this._scrolled = () => (this._scrolledAt = performance.now());
    for (const kind of ["wheel", "touchmove"]) addEventListener(kind, this._scrolled, { passive: true });
  }

  close() {
    for (const kind of ["wheel", "touchmove"]) removeEventListener(kind, this._scrolled);
    light("now");
    this._unhover();
  }

  /** Show these words. Those that are shown already, and are the same, stay as they are. */
  show(words) {
    const same = this._words.length <= words.length && this._words.every((word, index) => word === words[index]);
    if (!same) {
      this.element.replaceChildren();
      Object.assign(this, { _words: [], _paragraphs: [], _speakers: [] });
      this._mark(-1);
    }
    let filled = this._words.length;
    for (const word of words.slice(filled)) {
      let last = this._paragraphs.at(-1);
      if (!last || word.speaker !== last.speaker || startsParagraph(this._words.at(-1), word, last.count)) {
        this._fill(last, filled);
        filled = this._words.length;
        last = this._addParagraph(word);
      }
      last.count++;
      this._words.push(word);
    }
    this._fill(this._paragraphs.at(-1), filled);
  }

  /** Write the speakers' names again. */
  rename() {
    for (const { who, speaker } of this._paragraphs) if (who) setText(who, this._nameOf(speaker));
  }

  /** The time that is played now: its word lights up. follow: whether to scroll to it. */
  playAt(seconds, follow) {
    const index = wordAt(this._words, seconds);
    if (index !== this._current) this._mark(index);
    if (follow && index >= 0 && performance.now() - this._scrolledAt > 4000) this._reveal(index, innerHeight / 3);
  }

  _addParagraph(word) {
    const { speaker } = word;
    const text = h("span", { class: "text" });
    const label = clock(word.start);
    const time = h("button", { type: "button", class: "at", "aria-label": `Play from ${label}`, "data-at": word.start }, label);
    if (speaker && !this._speakers.includes(speaker)) this._speakers.push(speaker);
    const colour = this._speakers.indexOf(speaker) % COLOURS;
    const who = speaker && h("span", { class: "who", "data-colour": colour }, this._nameOf(speaker));
    const paragraph = { element: h("p", {}, time, who, text), text, who, speaker, first: this._words.length, count: 0 };
    paragraph.element.paragraph = paragraph;
    this._paragraphs.push(paragraph);
    this.element.append(paragraph.element);
    return paragraph;
  }

  /** Append the words from this index to their paragraph: text, and an element for each of low probability. */
  _fill(paragraph, from) {
    const { text, first, count } = paragraph ?? {};
    if (!(from < first + count)) return;
    let plain = from > first ? " " : "";
    for (let index = from; index < first + count; index++) {
      const { word, probability } = this._words[index];
      const space = index + 1 < first + count ? " " : "";
      if (!(probability < LOW)) {
        plain += word + space;
        continue;
      }
      text.append(plain, h("span", { class: "low", "data-i": index }, word));
      plain = space;
    }
    text.append(plain);
  }

  _paragraphOf(index) {
    if (index < 0) return undefined;
    let [low, high] = [0, this._paragraphs.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this._paragraphs[middle].first <= index) low = middle + 1;
      else high = middle;
    }
    return this._paragraphs[low - 1];
  }

  /** Where a word is in the document. */
  _rangeOf(index) {
    const { text, first } = this._paragraphOf(index);
    const before = textOf(this._words.slice(first, index));
    const start = before ? before.length + 1 : 0;
    const range = new Range();
    const [from, to] = [place(text, start, false), place(text, start + this._words[index].word.length, true)];
    range.setStart(...from);
    range.setEnd(...to);
    return range;
  }

  /** Index of the word at a point of the window; -1 where there is none. */
  _indexAt(x, y) {
    const caret = document.caretPositionFromPoint?.(x, y);
    const range = caret ? undefined : document.caretRangeFromPoint?.(x, y); // of older browsers
    const [node, offset] = caret ? [caret.offsetNode, caret.offset] : [range?.startContainer, range?.startOffset];
    const element = node?.parentElement?.closest(".transcript .text");
    if (!element) return -1;
    const { first, count } = element.parentElement.paragraph;
    const until = new Range();
    until.setStart(element, 0);
    until.setEnd(node, offset);
    let left = until.toString().length;
    let index = first;
    while (index + 1 < first + count && left > this._words[index].word.length) left -= this._words[index++].word.length + 1;
    // A caret is between two characters, also beside a line's last word: the point has to be on one of the two words.
    for (const one of [index, index + 1, index - 1]) {
      if (one < first || one >= first + count) continue;
      const boxes = [...this._rangeOf(one).getClientRects()];
      if (boxes.some(({ left: l, right, top, bottom }) => x >= l && x <= right && y >= top && y <= bottom)) return one;
    }
    return -1;
  }

  _mark(index) {
    this._current = index;
    light("now", index < 0 ? undefined : this._rangeOf(index));
  }

  /** Scroll so that a word is below the player and above the window's end; if it is not, to `top`. */
  _reveal(index, top) {
    const box = this._rangeOf(index).getBoundingClientRect();
    if (box.top >= 180 && box.bottom <= innerHeight - 60) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    scrollBy({ top: box.top - top, behavior: calm ? "auto" : "smooth" });
  }

  _click(event) {
    const time = event.target.closest("[data-at]");
    if (time) return this._onSeek(Number(time.dataset.at));
    const index = getSelection().isCollapsed ? this._indexAt(event.clientX, event.clientY) : -1;
    if (index >= 0) this._onSeek(this._words[index].start);
  }

  _key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in MOVES && this._words.length) {
      const to = Math.min(this._words.length - 1, Math.max(0, this._current + MOVES[event.key]));
      this._mark(to);
      this._reveal(to, innerHeight / 3);
      this._onSeek(this._words[to].start, { stay: true });
    } else if (event.key === "Enter" && this._current >= 0) {
      this._onSeek(this._words[this._current].start);
    } else if (event.key === " ") {
      this._onToggle();
    } else {
      return;
    }
    event.preventDefault();
  }

  _hover({ clientX, clientY, target, buttons }) {
    const index = buttons || !target.closest(".text") ? -1 : this._indexAt(clientX, clientY);
    light("hover", index < 0 ? undefined : this._rangeOf(index));
    const element = target.closest(".low");
    const tip = $("tip");
    tip.hidden = !element;
    if (!element) return;
    const { probability, start } = this._words[element.dataset.i];
    setText(tip, `probability ${probability.toFixed(2)} · ${clock(start)}`);
    const box = element.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(innerWidth - tip.offsetWidth - 8, box.left + box.width / 2 - tip.offsetWidth / 2))}px`;
    tip.style.top = `${box.top - tip.offsetHeight - 6}px`;
  }

  _unhover() {
    light("hover");
    $("tip").hidden = true;
  }
}

/** Light up a range of the document, or nothing. name: of the highlight in style.css. */
function light(name, range) {
  if (range) highlights?.set(name, new Highlight(range));
  else highlights?.delete(name);
}

/** The text node of an element, and the offset in it, after so many of the element's characters. atEnd: whether
    between two nodes it is the end of the first one, or the start of the second. */
function place(element, characters, atEnd) {
  const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let left = characters;
  for (let node = nodes.nextNode(); node; node = nodes.nextNode()) {
    if (left < node.length || (atEnd && left === node.length)) return [node, left];
    left -= node.length;
  }
  return [element, element.childNodes.length];
}
