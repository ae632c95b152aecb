// Shows words as paragraphs that can be read, clicked and followed. A paragraph is plain text until it comes near the
// window; only then does each of its words become an element, so that hours of words stay light.

import { $, h, setText } from "./dom.js";
import { LOW, clock, startsParagraph, textOf, wordAt } from "./words.js";

const NEAR = "800px";
const MOVES = { ArrowLeft: -1, ArrowRight: 1 };

export class Transcript {
  /** onSeek: called with seconds when somebody wants to hear a word. onToggle: to play or pause. */
  constructor({ onSeek, onToggle }) {
    this._onSeek = onSeek;
    this._onToggle = onToggle;
    this._words = [];
    this._paragraphs = []; // {element, text, first, count, isNear}
    this._current = -1;
    this._scrolledAt = 0;
    this.element = h("div", {
      class: "transcript", tabindex: 0, role: "group",
      "aria-label": "Transcript. Left and right go from word to word, Enter plays from there, Space pauses.",
      onclick: (event) => this._click(event), onkeydown: (event) => this._key(event),
      onpointerover: (event) => this._hover(event), onpointerleave: () => hideTip(),
    });
    this._near = new IntersectionObserver((entries) => this._moved(entries), { rootMargin: `${NEAR} 0px` });
    this._scrolled = () => (this._scrolledAt = performance.now());
    for (const kind of ["wheel", "touchmove"]) addEventListener(kind, this._scrolled, { passive: true });
  }

  close() {
    this._near.disconnect();
    for (const kind of ["wheel", "touchmove"]) removeEventListener(kind, this._scrolled);
    hideTip();
  }

  /** Show these words. Those that are shown already, and are the same, stay as they are. */
  show(words) {
    const same = this._words.length <= words.length && this._words.every((word, index) => word === words[index]);
    if (!same) {
      this._near.disconnect();
      this.element.replaceChildren();
      Object.assign(this, { _words: [], _paragraphs: [], _current: -1 });
    }
    const changed = new Set();
    for (const word of words.slice(this._words.length)) {
      let last = this._paragraphs.at(-1);
      if (!last || startsParagraph(this._words.at(-1), word, last.count)) last = this._addParagraph(word);
      last.count++;
      changed.add(last);
      this._words.push(word);
    }
    for (const paragraph of changed) this._fill(paragraph);
  }

  /** The time that is played now: its word lights up. follow: whether to scroll to it. */
  playAt(seconds, follow) {
    const index = wordAt(this._words, seconds);
    if (index !== this._current) this._mark(index);
    const paragraph = this._paragraphOf(index);
    if (!follow || !paragraph || performance.now() - this._scrolledAt < 4000) return;
    const box = (this._elementOf(index) ?? paragraph.element).getBoundingClientRect();
    if (box.top < 180 || box.bottom > innerHeight - 60) {
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      scrollBy({ top: box.top - innerHeight / 3, behavior: calm ? "auto" : "smooth" });
    }
  }

  _addParagraph(word) {
    const text = h("span", { class: "text" });
    const label = clock(word.start);
    const time = h("button", { type: "button", class: "at", "aria-label": `Play from ${label}`, "data-at": word.start }, label);
    const paragraph = { element: h("p", {}, time, text), text, first: this._words.length, count: 0, isNear: false };
    paragraph.element.paragraph = paragraph;
    this._paragraphs.push(paragraph);
    this.element.append(paragraph.element);
    this._near.observe(paragraph.element);
    return paragraph;
  }

  _moved(entries) {
    const selects = !getSelection().isCollapsed; // replacing text would take the selection away
    for (const { target, isIntersecting } of entries) {
      if (target.paragraph.isNear === isIntersecting || (selects && !isIntersecting)) continue;
      target.paragraph.isNear = isIntersecting;
      this._fill(target.paragraph);
    }
  }

  _fill({ text, first, count, isNear }) {
    const words = this._words.slice(first, first + count);
    if (!isNear) {
      text.textContent = textOf(words);
      return;
    }
    const shown = text.firstElementChild ? text.childElementCount : 0;
    if (!shown) text.replaceChildren();
    words.slice(shown).forEach((word, offset) => {
      const index = first + shown + offset;
      const isLow = word.probability < LOW;
      const kind = `w${isLow ? " low" : ""}${index === this._current ? " now" : ""}`;
      text.append(shown + offset ? " " : "", h("span", { class: kind, "data-i": index }, word.word));
    });
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

  _elementOf(index) {
    const paragraph = this._paragraphOf(index);
    return paragraph?.isNear ? paragraph.text.children[index - paragraph.first] : undefined;
  }

  _mark(index) {
    this._elementOf(this._current)?.classList.remove("now");
    this._current = index;
    this._elementOf(index)?.classList.add("now");
  }

  _click(event) {
    const time = event.target.closest("[data-at]");
    const word = event.target.closest(".w");
    if (time) this._onSeek(Number(time.dataset.at));
    else if (word && getSelection().isCollapsed) this._onSeek(this._words[word.dataset.i].start);
  }

  _key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in MOVES && this._words.length) {
      const to = Math.min(this._words.length - 1, Math.max(0, this._current + MOVES[event.key]));
      this._mark(to);
      (this._elementOf(to) ?? this._paragraphOf(to).element).scrollIntoView({ block: "nearest" });
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

  _hover(event) {
    const element = event.target.closest(".w.low");
    if (!element) return hideTip();
    const { probability, start } = this._words[element.dataset.i];
    const tip = $("tip");
    setText(tip, `probability ${probability.toFixed(2)} · ${clock(start)}`);
    tip.hidden = false;
    const box = element.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(innerWidth - tip.offsetWidth - 8, box.left + box.width / 2 - tip.offsetWidth / 2))}px`;
    tip.style.top = `${box.top - tip.offsetHeight - 6}px`;
  }
}

function hideTip() {
  $("tip").hidden = true;
}
