// The view of files: where they are dropped, the list of what became of each, and the one that is shown.

import { Detail, sentence } from "./detail.js";
import { $, h, setText } from "./dom.js";
import { Jobs } from "./jobs.js";
import { options } from "./options.js";
import { limits } from "./status.js";
import { length, size } from "./words.js";

// By their names, since browsers give folders' files no type: what is offered to the service of a folder. A file that
// somebody chooses on its own is always sent, and the service says what it is.
const SOUND = /\.(aac|aif|aiff|amr|flac|m4a|m4b|mka|mkv|mov|mp3|mp4|mpeg|mpga|oga|ogg|opus|wav|weba|webm|wma)$/i;

const jobs = new Jobs({ options, limits });
const rows = new Map(); // of jobs
let detail;

export const hasOpenJobs = () => jobs.list.some(({ isOpen }) => isOpen);

export function start() {
  for (const [button, input] of [["choose-files", "input-files"], ["choose-folder", "input-folder"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", ({ target }) => {
      const chosen = [...target.files];
      add(chosen, input === "input-folder");
      target.value = "";
    });
  }
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.add("dragging");
    });
  }
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    location.hash = "#files";
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...event.dataTransfer.files];
    if (!entries.some(({ isDirectory }) => isDirectory)) add(files, false);
    else add((await Promise.all(entries.map(filesOf))).flat(), true);
  });
  jobs.addEventListener("change", ({ detail: job }) => {
    if (job) update(job);
    else list();
  });
  jobs.restore();
}

/** Those that were refused for their key, once there is another. */
export const retryRefused = () => jobs.retryRefused();

export function showLimits() {
  const { upload_bytes: bytes, audio_seconds: seconds } = limits() ?? {};
  const most = bytes ? `, up to ${size(bytes)} and ${length(seconds)} of audio` : "";
  setText($("promise"), `Any audio or video file${most}. It goes to ${location.host} and is not kept there.`);
}

function add(files, isFolder) {
  const taken = isFolder ? files.filter(({ name }) => SOUND.test(name)) : files;
  const left = files.length - taken.length;
  setText($("skipped"), left ? `${left} ${left === 1 ? "file is" : "files are"} neither audio nor video by name: left out.` : "");
  if (taken.length) show(jobs.add(taken));
}

/** The files of a dropped folder, and of those in it. */
async function filesOf(entry) {
  if (entry.isFile) return new Promise((resolve) => entry.file((file) => resolve([file]), () => resolve([])));
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return (await Promise.all(found.map(filesOf))).flat();
    found.push(...some);
  }
}

function show(job) {
  if (detail?.job === job) return;
  detail?.close();
  detail = job && new Detail($("detail"), jobs, job);
  if (!job) $("detail").replaceChildren();
  for (const [one, row] of rows) row.choose.setAttribute("aria-current", String(one === job));
}

/** Show a job, also where it lies below the list. */
function look(job) {
  show(job);
  if (matchMedia("(max-width: 899px)").matches) $("detail").scrollIntoView();
}

function list() {
  document.body.classList.toggle("has-jobs", jobs.list.length > 0);
  for (const [job, row] of rows) {
    if (jobs.list.includes(job)) continue;
    row.element.remove();
    rows.delete(job);
  }
  $("jobs").replaceChildren(...jobs.list.map((job) => rowOf(job).element));
  jobs.list.forEach(update);
  if (!jobs.list.includes(detail?.job)) show(jobs.list[0]);
}

function rowOf(job) {
  if (!rows.has(job)) {
    const name = h("span", { class: "file" }, job.name);
    const state = h("span", { class: "small" });
    const bar = h("progress", { max: 1, "aria-label": `Progress of ${job.name}` });
    const choose = h("button", { type: "button", class: "row", "aria-current": "false", onclick: () => look(job) }, name, state);
    const end = h("button", { type: "button", class: "quiet end", onclick: () => (job.isOpen ? jobs.cancel(job) : jobs.remove(job)) }, "×");
    rows.set(job, { element: h("li", {}, choose, end, bar), state, bar, choose, end });
  }
  return rows.get(job);
}

function update(job) {
  const row = rowOf(job);
  row.element.dataset.state = job.state;
  setText(row.state, sentence(job));
  row.end.setAttribute("aria-label", job.isOpen ? `Cancel ${job.name}` : `Remove ${job.name}`);
  row.end.title = job.isOpen ? "Cancel" : "Remove from this browser";
  row.bar.hidden = !job.isOpen || job.state === "waiting";
  const known = detail?.job === job ? detail.seconds : 0;
  const share = job.state === "uploading" ? job.share : known ? (job.shown.at(-1)?.end ?? 0) / known : undefined;
  if (share === undefined) row.bar.removeAttribute("value"); // under way, nobody knows how far
  else row.bar.value = share;
  if (detail?.job === job) detail.update();
}
