// The speakers of a recording: their names, which the reader may change before they are exported.

import { h } from "./dom.js";
import { speakersOf } from "./words.js";

const MAX_CHARACTERS = 100; // of a name, as the service has it

export class Speakers {
  /** onName: called with a label and its name, "" for none. isFinal: whether the reader has finished typing. */
  constructor(onName) {
    this._onName = onName;
    this._labels = [];
    this.element = h("div", { class: "speakers", role: "group", "aria-label": "Names of the speakers", hidden: true });
  }

  /** Show a field for each speaker of these words. names: those that were given, by label. */
  show(words, names) {
    const labels = speakersOf(words);
    this.element.hidden = !labels.length;
    if (labels.length === this._labels.length) return; // somebody may be typing in one
    const added = labels.slice(this._labels.length);
    this._labels = labels;
    this.element.append(...added.map((label) => this._field(label, names[label])));
  }

  _field(label, name) {
    const called = `Speaker ${label}`;
    const colour = this._labels.indexOf(label);
    const input = h("input", {
      type: "text", autocomplete: "off", spellcheck: "false", maxlength: MAX_CHARACTERS, placeholder: "Name",
      "aria-label": `Name of speaker ${label}`, "data-speaker": label, value: name,
      oninput: () => this._onName(label, clean(input.value), false),
      onchange: () => this._onName(label, clean(input.value), true),
    });
    return h("label", {}, h("span", { class: "who", "data-colour": colour, "aria-hidden": "true" }, called), input);
  }
}

/** A name in one line, which formats of one line a cue need. */
const clean = (text) => text.replace(/[\p{C}\s]+/gu, " ").trim();
