// A job as its log tells it: changed by events, and by nothing else.
//
// `attempts` has one entry for each that began: its worker, how far it came, and how it ended if it did not succeed.

export const ENDS = ["job.succeeded", "job.failed", "job.cancelled"];
const TYPES = ["job.queued", "job.started", "job.retrying", "progress", ...ENDS];

export function newJob(id) {
  return { id, state: "queued", fraction: 0, step: "", message: "", attempts: [], note: "", end: null };
}

const CHANGES = {
  "job.started": (job, data) => {
    job.state = "running";
    job.fraction = 0;
    job.step = "";
    job.note = "";
    job.attempts.push({ number: data.attempt, worker: data.worker, step: "", ended: "" });
  },
  progress: (job, data) => {
    job.fraction = data.fraction ?? job.fraction;
    job.step = data.step ?? job.step;
    job.message = data.message ?? "";
    const now = job.attempts.at(-1);
    if (now) now.step = job.step;
  },
  "job.retrying": (job, data) => {
    const last = job.attempts.at(-1);
    if (last) last.ended = why(data);
    job.state = "queued";
    job.fraction = 0;
    job.step = "";
    job.note = "Another attempt begins in a moment.";
  },
  "job.succeeded": (job, data) => end(job, "succeeded", data),
  "job.failed": (job, data) => end(job, "failed", data),
  "job.cancelled": (job, data) => end(job, "cancelled", data),
};

/** Follow a job from its beginning. The browser comes back by itself, to where it was. `changed(job)` after each event. */
export function follow(id, changed) {
  const job = newJob(id);
  const source = new EventSource(`/v1/jobs/${id}/events?types=${TYPES.join(",")}`);
  for (const type of TYPES) {
    source.addEventListener(type, (event) => {
      CHANGES[type]?.(job, JSON.parse(event.data).data);
      if (ENDS.includes(type)) source.close();
      changed(job);
    });
  }
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED && !job.end) {
      job.state = "unknown";
      job.note = "There is no such analysis any more: results are kept for a day.";
    } else if (!job.end) {
      job.note = "The line is lost. Trying again…";
    }
    changed(job);
  };
  source.onopen = () => {
    if (job.note.startsWith("The line")) job.note = "";
    changed(job);
  };
  changed(job);
  return () => source.close();
}

function end(job, state, data) {
  job.state = state;
  job.end = data;
  job.note = "";
  if (state === "succeeded") job.fraction = 1;
  const last = job.attempts.at(-1);
  if (last && state !== "succeeded") last.ended = state;
}

function why(data) {
  switch (data.reason) {
    case "worker_lost":
      return "its worker was lost";
    case "crashed":
      return "its process died";
    case "released":
      return "given back: the worker stopped";
    default:
      return `failed: ${data.error?.message ?? "an error"}`;
  }
}
