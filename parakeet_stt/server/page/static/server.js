// The view of the server: what it serves, how fast it is now, what it is busy with, and how a program calls it.

import { getKey } from "./api.js";
import { $, copy, h, setText } from "./dom.js";
import { status } from "./status.js";
import { clock, length, size } from "./words.js";

const FIGURES = {
  model: "Model", device: "Device", precision: "Precision", languages: "Languages",
  speed: "Speed now", waiting: "Audio waiting", sessions: "Live sessions", limits: "One upload, at most",
};
const SNIPPETS = {
  curl: (base, key) => `curl ${base}/audio/transcriptions \\
${key ? '  -H "Authorization: Bearer $OPENAI_API_KEY" \\\n' : ""}  -F model=whisper-1 -F response_format=text \\
  -F file=@speech.wav`,
  Python: (base, key) => `from openai import OpenAI

client = OpenAI(base_url="${base}"${key ? "" : ', api_key="none"'})
with open("speech.wav", "rb") as file:
    answer = client.audio.transcriptions.create(model="whisper-1", file=file)
print(answer.text)`,
  JavaScript: (base, key) => `import fs from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${base}"${key ? "" : ', apiKey: "none"'} });
const answer = await client.audio.transcriptions.create({
  model: "whisper-1",
  file: fs.createReadStream("speech.wav"),
});
console.log(answer.text);`,
};

const values = {};
let chosen = "curl";

export function start() {
  const figures = Object.entries(FIGURES).map(([name, label]) => {
    values[name] = h("dd", {}, "–");
    return h("div", {}, h("dt", {}, label), values[name]);
  });
  const code = h("code");
  const tabs = Object.keys(SNIPPETS).map((name) =>
    h("button", { type: "button", "aria-pressed": String(name === chosen), onclick: () => choose(name) }, name));
  const choose = (name) => {
    chosen = name;
    tabs.forEach((tab) => tab.setAttribute("aria-pressed", String(tab.textContent === name)));
    setText(code, snippet());
  };
  const copying = h("button", { type: "button", onclick: () => copy(copying, code.textContent) }, "Copy");
  $("server-view").append(
    h("dl", { class: "figures" }, figures),
    h("div", { class: "more", id: "real-model", hidden: true },
      h("h2", {}, "The real model"),
      h("p", {}, "This server has the tiny demonstration model. To serve NVIDIA’s Parakeet, fetch it once and start again with its name:"),
      h("pre", { tabindex: 0 }, h("code", {}, ".venv/bin/python -m parakeet_stt fetch nvidia/parakeet-tdt-0.6b-v2\nSTT_MODEL=nvidia/parakeet-tdt-0.6b-v2 make serve"))),
    h("h2", {}, "Use it from your program"),
    h("div", { class: "snippet" }, h("div", { class: "bar" },
      h("span", { class: "group", role: "group", "aria-label": "Language of the snippet" }, tabs), copying),
    h("pre", { tabindex: 0, "aria-label": "Snippet" }, code)),
    h("p", { class: "small" }, "Every field and route: ", h("a", { href: "docs" }, "the API’s own page"), "."),
  );
  choose(chosen);
  status.addEventListener("change", () => {
    show();
    choose(chosen);
  });
}

const snippet = () => SNIPPETS[chosen](new URL("v1", document.baseURI).href, Boolean(getKey()));

function show() {
  const { now } = status;
  if (!now) return;
  const { model, limits } = now;
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  const few = model.languages.length <= 3;
  setText(values.model, model.name);
  setText(values.device, model.device);
  setText(values.precision, model.precision);
  setText(values.languages, few ? model.languages.map((code) => names.of(code)).join(", ") : `${model.languages.length}`);
  setText(values.speed, `${now.speed < 10 ? now.speed : Math.round(now.speed)} × real time`);
  setText(values.waiting, now.waiting_seconds < 60 ? `${Math.round(now.waiting_seconds)} s` : clock(now.waiting_seconds));
  setText(values.sessions, `${now.sessions} of ${limits.sessions}`);
  setText(values.limits, `${size(limits.upload_bytes)}, ${length(limits.audio_seconds)}`);
  $("real-model").hidden = !model.is_demo;
}
