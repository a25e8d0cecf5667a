// What is shown of a job and of its result. All text goes in by textContent.

export const find = (id) => document.getElementById(id);

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const STATES = {
  uploading: "Uploading…",
  queued: "In line",
  running: "Running",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  unknown: "Gone",
};
const STEPS = {
  download: "Fetch the image",
  "load model": "Load the networks",
  preprocess: "Read bands, compute indices",
  inference: "Look at every pixel",
  postprocess: "Verdict and maps",
  store: "Keep the result",
  done: "the end",
};
const MAPS = { picture: "As the eye sees it", ndvi: "NDVI", classes: "Classes" };
const NDVI_STOPS = [
  ["water, shade", "#464f5f"],
  ["bare", "#debe82"],
  ["sparse", "#e8de82"],
  ["half covered", "#96c85a"],
  ["full", "#379641"],
  ["dense", "#085028"],
];

/** How far a job is. */
export function showRun(job, steps) {
  find("run").hidden = false;
  const state = find("state");
  state.textContent = job.note || STATES[job.state];
  state.dataset.state = job.state;
  find("cancel").hidden = !["uploading", "queued", "running"].includes(job.state);
  find("bar").value = Math.round(100 * job.fraction);
  find("bar").dataset.state = job.state;
  const at = job.state === "succeeded" ? steps.length : steps.indexOf(job.step);
  find("steps").replaceChildren(
    ...steps.map((step, n) => {
      const row = element("li", "", STEPS[step] ?? step);
      row.dataset.state = n < at ? "done" : n === at && job.state === "running" ? "now" : "to come";
      if (row.dataset.state === "now") row.setAttribute("aria-current", "step");
      return row;
    }),
  );
  showAttempts(job);
}

/** Every attempt, when there was more than one, or one went wrong. */
function showAttempts(job) {
  const shown = job.attempts.length > 1 || job.attempts.some((one) => one.ended);
  find("attempts").hidden = !shown;
  find("attempts").replaceChildren(
    ...job.attempts.map((one) => {
      const row = element("li");
      row.append(element("strong", "", `Attempt ${one.number}`), ` on ${one.worker}`);
      const said = one.ended ? `${one.step ? `at “${STEPS[one.step] ?? one.step}”: ` : ""}${one.ended}` : job.state === "succeeded" ? "brought the result" : "goes on";
      row.append(element("span", one.ended ? "bad" : "good", said));
      return row;
    }),
  );
}

/** What came of it. `colours`: of the classes, as red, green and blue. */
export function showResult(result, job, colours) {
  find("result").hidden = false;
  const watered = result.irrigation_needed;
  find("verdict").replaceChildren(
    ...tile("Crop", result.crop_type ?? "not known", result.confidence === null ? "" : `on ${percent(result.shares[result.crop_type])} of the ground, ${percent(result.confidence)} sure`),
    ...tile("NDVI", result.ndvi === null ? "not known" : result.ndvi.toFixed(2), result.cover === null ? "" : `${percent(result.cover)} under green leaves`),
    ...tile("Soil", result.soil_health ?? "not known", "by how well it is covered", result.soil_health),
    ...tile("Irrigation", watered === null ? "not known" : watered ? "needed" : "not needed", watered === null ? "no short-wave infrared" : "by the water in the leaves", watered === null ? "" : watered ? "poor" : "good"),
  );
  showMaps(result, colours);
  find("shares").replaceChildren(...shares(result.shares, colours));
  find("indices").replaceChildren(...Object.entries(result.indices).map(indexRow));
  find("notes").replaceChildren(...result.notes.map((note) => element("li", "", note)));
  const image = result.image;
  const size = `${image.width} × ${image.height} pixels${image.pixel_m ? ` of ${+image.pixel_m.toFixed(2)} m` : ""}, ${image.bands.join(" ")}`;
  const by = `${result.model_version ?? "no network"} on ${result.device.toUpperCase()}`;
  find("about").textContent = `${size}. ${by}, ${result.seconds.toFixed(1)} s, ${job.attempts.length > 1 ? `attempt ${job.attempts.length}, ` : ""}${new Date(result.timestamp).toLocaleString()}.`;
}

function tile(name, value, more, mood = "") {
  const box = element("div", "tile");
  box.dataset.mood = mood ?? "";
  box.append(element("dt", "", name), element("dd", "value", value), element("dd", "more", more));
  return [box];
}

function showMaps(result, colours) {
  const there = Object.keys(MAPS).filter((name) => result.maps[name]);
  const choose = (name) => {
    find("map").src = result.maps[name];
    find("map").alt = `${MAPS[name]} of ${result.crop_id}`;
    for (const tab of find("tabs").children) tab.setAttribute("aria-selected", String(tab.dataset.map === name));
    find("legend").replaceChildren(...legend(name, result, colours));
  };
  find("tabs").replaceChildren(
    ...there.map((name) => {
      const tab = element("button", "tab", MAPS[name]);
      tab.type = "button";
      tab.role = "tab";
      tab.dataset.map = name;
      tab.onclick = () => choose(name);
      return tab;
    }),
  );
  choose(there.includes("ndvi") ? "ndvi" : there[0]);
}

function legend(name, result, colours) {
  if (name === "ndvi") return NDVI_STOPS.map(([text, colour]) => key(text, colour));
  if (name === "classes") return Object.keys(result.shares).map((one) => key(one, rgb(colours[one])));
  return [element("span", "hint", "Red, green and blue, stretched to be seen")];
}

function key(text, colour) {
  const shown = element("span", "key", text);
  const dot = element("i");
  dot.style.background = colour;
  shown.prepend(dot);
  return shown;
}

function shares(found, colours) {
  const rows = Object.entries(found).sort(([, one], [, other]) => other - one);
  if (!rows.length) return [element("li", "hint", "Not known for this image.")];
  return rows.map(([name, share]) => {
    const row = element("li");
    const bar = element("span", "share");
    bar.style.width = `${Math.max(100 * share, 0.5)}%`;
    bar.style.background = rgb(colours[name]);
    const track = element("span", "track");
    track.append(bar);
    row.append(element("span", "name", name), track, element("span", "number", percent(share)));
    return row;
  });
}

function indexRow([name, told]) {
  const row = element("tr");
  const head = element("th", "", name.toUpperCase());
  head.scope = "row";
  row.append(head, ...[told.mean, told.low, told.high].map((value) => element("td", "", value.toFixed(2))));
  return row;
}

const rgb = (parts) => `rgb(${(parts ?? [120, 120, 120]).join(" ")})`;
const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
