// Composes the page: its views, the key, the state of the server.

import { events, getKey, setKey } from "./api.js";
import { $, setText } from "./dom.js";
import * as files from "./files.js";
import * as microphone from "./microphone.js";
import * as options from "./options.js";
import * as server from "./server.js";
import { refresh, status } from "./status.js";

const VIEWS = ["files", "microphone", "server"];

function showView() {
  const asked = location.hash.slice(1);
  if (asked === "main") return; // the link that skips to the content
  const view = VIEWS.includes(asked) ? asked : VIEWS[0];
  for (const one of VIEWS) $(`view-${one}`).hidden = one !== view; // other names than the hashes: no jump to them
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · Parakeet`;
  scrollTo(0, 0);
  status.isWatched = view === "server";
  refresh();
}

function showState() {
  const { now, failure } = status;
  const state = failure?.status === 401 ? "locked" : failure ? "away" : "ready";
  $("state").dataset.state = state;
  const name = now && now.model.name.split("/").pop();
  setText($("state-text"), { locked: "Key needed", away: "Does not answer", ready: name }[state]);
  $("key-open").hidden = state !== "locked" && !getKey();
  if (!now) return;
  $("demo").hidden = !now.model.is_demo;
  options.showLanguages(now.model.languages);
  options.showSpeakers(now.model.tells_speakers);
  files.showLimits();
}

function askForKey() {
  const dialog = $("key-dialog");
  if (dialog.open) return;
  const kept = "It stays in this tab and is gone when the tab is closed.";
  setText($("key-problem"), getKey() ? `The server does not know this key. ${kept}` : kept);
  $("key-problem").classList.toggle("problem", Boolean(getKey()));
  $("key").value = "";
  dialog.showModal();
}

$("key-dialog").addEventListener("close", ({ target }) => {
  if (target.returnValue !== "use") return;
  setKey($("key").value.trim());
  refresh().then(() => status.failure || files.retryRefused());
});
$("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault(); // or the form's first button, which is not this one, would be pressed
  $("key-use").click();
});
$("key-open").addEventListener("click", askForKey);
events.addEventListener("key-needed", askForKey);
status.addEventListener("change", showState);
addEventListener("hashchange", showView);
addEventListener("beforeunload", (event) => {
  if (files.hasOpenJobs() || microphone.isRecording()) event.preventDefault();
});

options.start();
server.start();
microphone.start();
files.start();
showView();
