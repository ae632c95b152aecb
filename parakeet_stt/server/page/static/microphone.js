// The view of the microphone: a level, captions as they come, their delay, and what can be taken at the end.

import { openMicrophone } from "./capture.js";
import { $, copy, download, h, setText } from "./dom.js";
import { FORMATS, named } from "./formats.js";
import { LiveSession } from "./live.js";
import { options } from "./options.js";
import { loadLive, saveLive } from "./store.js";
import { clock } from "./words.js";

const FLOOR = -54; // dB; the left end of the level

let captions = []; // {start, end, text, delay}
let running; // {microphone, session, timer}

export const isRecording = () => running !== undefined;

export async function start() {
  $("record").addEventListener("click", () => (running ? stop() : record()));
  const copying = h("button", { type: "button", onclick: () => copy(copying, captions.map(({ text }) => text).join("\n")) }, "Copy");
  const saving = Object.entries(FORMATS).map(([ending, { type, write }]) =>
    h("button", {
      type: "button", title: `Download as ${ending}`, "aria-label": `Download as ${ending}`, "data-format": ending,
      onclick: () => download(named("captions", ending), type, write(transcript())),
    }, ending));
  $("live-actions").append(copying, h("span", { class: "group", role: "group", "aria-label": "Download" }, saving));
  const kept = await loadLive();
  if (!kept?.length || captions.length) return;
  kept.forEach(add);
  $("live-actions").hidden = false;
  say("These are the captions of last time. A new start replaces them.");
}

/** As the formats take it: a caption is a segment, and counts as one word, since its words have no times. */
function transcript() {
  const segments = captions.map(({ start, end, text }, id) => ({ id, start, end, text }));
  const words = segments.map(({ start, end, text }) => ({ word: text, start, end }));
  return { language: "english", duration: segments.at(-1)?.end ?? 0, segments, words };
}

async function record() {
  $("record").disabled = true;
  say("Opening the microphone …");
  let session;
  let microphone;
  const waiting = []; // what comes before the session is open
  const take = ({ samples, peak }) => {
    level(peak);
    if (session) session.push(samples);
    else waiting.push(samples);
  };
  try {
    microphone = await openMicrophone(take);
    const opened = new LiveSession({ rate: microphone.rate, ...options() });
    listen(opened);
    await opened.open();
    session = opened;
    waiting.forEach((samples) => session.push(samples));
  } catch (error) {
    microphone?.close();
    level(0);
    say(error.requestId ? `${error.message} (request ${error.requestId})` : error.message, true);
    $("record").disabled = false;
    return;
  }
  captions = [];
  $("captions").replaceChildren();
  $("live-actions").hidden = true;
  saveLive([]);
  const began = performance.now();
  const tick = () => setText($("elapsed"), clock((performance.now() - began) / 1000));
  running = { microphone, session, timer: setInterval(tick, 250) };
  tick();
  button(true);
  say("Listening");
}

async function stop() {
  const { microphone, session, timer } = running;
  $("record").disabled = true;
  clearInterval(timer);
  await microphone.close();
  level(0);
  say("Waiting for the last words …");
  await session.finish();
  running = undefined;
  open("");
  button(false);
  say(captions.length ? `${captions.length} ${captions.length === 1 ? "caption" : "captions"}` : "Nothing was said.");
  $("live-actions").hidden = !captions.length;
}

function listen(session) {
  session.addEventListener("open", ({ detail }) => open(detail.text));
  session.addEventListener("state", ({ detail }) => running && say(detail || "Listening", Boolean(detail)));
  session.addEventListener("final", ({ detail }) => {
    open("");
    if (detail.failed) say(detail.failed, true);
    if (!detail.text) return;
    add(detail);
    saveLive(captions);
  });
}

function add(caption) {
  captions.push({ start: caption.start, end: caption.end, text: caption.text, delay: caption.delay });
  const { scrollHeight } = document.documentElement;
  const atEnd = scrollY + innerHeight > scrollHeight - 120;
  const delay = caption.delay.toFixed(2);
  $("captions").append(h("li", {},
    h("span", { class: "at", "aria-hidden": "true" }, clock(caption.start)),
    h("span", { class: "text" }, caption.text),
    h("span", { class: "delay", title: "From the end of speech to this text", "aria-hidden": "true" }, `${delay} s`)));
  if (atEnd) scrollTo({ top: document.documentElement.scrollHeight });
}

const open = (text) => setText($("open-caption"), text);

function say(text, isProblem = false) {
  setText($("live-state"), text);
  $("live-state").classList.toggle("problem", isProblem);
}

function button(isOn) {
  $("record").disabled = false;
  $("record").setAttribute("aria-pressed", String(isOn));
  $("live-fields").hidden = isOn; // they count for the next start
  setText($("record").firstElementChild, isOn ? "Stop" : "Start");
}

function level(peak) {
  const share = Math.max(0, Math.min(1, 1 - (20 * Math.log10(peak || 1e-6)) / FLOOR));
  $("level").setAttribute("aria-valuenow", Math.round(100 * share));
  $("level").firstElementChild.style.transform = `scaleX(${share})`;
}
