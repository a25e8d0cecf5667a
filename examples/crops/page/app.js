// Upload an image, follow its job, show what came of it. The address names the job, so that a reload goes on.

import { follow, newJob } from "./job.js";
import { element, find, showResult, showRun } from "./view.js";

const LOOK_MS = 3000; // at the line, for the top of the page

const config = await (await fetch("config.json")).json();
let leave = () => {};
let sending = null;
let current = null;

find("limits").textContent = `${config.types.join(" ")}, ${mb(config.min_bytes)} to ${mb(config.max_bytes)} MB`;
find("file").accept = config.types.join(",");
for (const [name, about] of Object.entries(config.samples)) {
  const button = element("button", "quiet", name);
  button.type = "button";
  button.title = about;
  button.onclick = () => trySample(name);
  find("samples").append(button);
}

find("upload").onsubmit = (event) => event.preventDefault();
find("file").onchange = () => find("file").files[0] && send(find("file").files[0]);
find("cancel").onclick = cancel;
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  find("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });
}
addEventListener("hashchange", open);
look();
open();

/** Show the job that the address names. */
function open() {
  const id = location.hash.slice(1);
  if (id && id !== current) watch(id);
}

function watch(id) {
  leave();
  current = id;
  find("result").hidden = true;
  leave = follow(id, async (job) => {
    if (current !== id) return;
    showRun(job, config.steps);
    if (job.state === "succeeded") {
      const answered = await (await fetch(`/api/results/${id}`)).json();
      if (current === id && answered.result) showResult(answered.result, job, config.colours);
      look();
    } else if (job.state === "failed") {
      refuse(job.end.error?.message ?? "The analysis failed.");
    }
  });
}

async function trySample(name) {
  refuse("");
  const image = await (await fetch(`samples/${name}`)).blob();
  send(new File([image], name));
}

/** Upload an image; how much of it is there shows as it goes. */
function send(file) {
  if (!find("crop").reportValidity()) return;
  refuse("");
  leave();
  sending?.abort();
  current = null;
  find("result").hidden = true;
  const job = newJob(null);
  job.state = "uploading";
  showRun(job, config.steps);
  const form = new FormData();
  form.append("file", file, file.name);
  const request = (sending = new XMLHttpRequest());
  request.open("POST", `/api/crops/${encodeURIComponent(find("crop").value)}/analyze`);
  request.upload.onprogress = (event) => {
    job.note = event.loaded < event.total ? `Uploading… ${Math.round((100 * event.loaded) / event.total)} %` : "Looking at it…";
    showRun(job, config.steps);
  };
  request.onload = () => {
    sending = null;
    find("file").value = "";
    const answer = JSON.parse(request.responseText);
    if (request.status >= 400) {
      find("run").hidden = true;
      refuse(answer.detail ?? answer.title);
      return;
    }
    history.pushState(null, "", `#${answer.job_id}`);
    watch(answer.job_id);
    look();
  };
  request.onerror = () => {
    sending = null;
    find("run").hidden = true;
    refuse("The server cannot be reached.");
  };
  request.send(form);
}

async function cancel() {
  if (sending) {
    sending.abort();
    sending = null;
    find("run").hidden = true;
  } else if (current) {
    await fetch(`/api/jobs/${current}`, { method: "DELETE" });
  }
}

function refuse(text) {
  find("refusal").textContent = text;
  find("refusal").hidden = !text;
}

/** The line, at the top of the page. */
async function look() {
  clearTimeout(look.timer);
  try {
    const stats = await (await fetch("/api/queue/stats")).json();
    const workers = `${stats.active_workers} worker${stats.active_workers === 1 ? "" : "s"}`;
    const alerts = stats.alerts.map((alert) => alert.detail).join("; ");
    find("line").textContent = `${workers}${stats.gpu_workers ? `, ${stats.gpu_workers} with a GPU` : ""} · ${stats.queued} waiting · ${stats.finished} done${stats.failed ? ` · ${stats.failed} failed` : ""}${alerts ? ` · ${alerts}` : ""}`;
    find("line").dataset.state = stats.alerts.length ? "alert" : stats.active_workers ? "well" : "empty";
  } catch {
    find("line").textContent = "The server cannot be reached.";
    find("line").dataset.state = "alert";
  }
  look.timer = setTimeout(look, LOOK_MS);
}

function mb(bytes) {
  return +(bytes / 1e6).toFixed(1);
}
