// A turn: what was asked, and the answer as far as it is known. Changed by what the gateway says, and by nothing else.
//
// `state`: sending → waiting → answering → done | stopped | failed; `busy` when it was refused for now.
// `lastId` is the event up to which `text` holds: the two are always kept together, so to go on after `lastId` leaves
// no gap and repeats nothing.

const OPEN = new Set(["sending", "busy", "waiting", "answering", "stopping"]);

export function newTurn(question) {
  return { key: newKey(), question, text: "", state: "sending", jobId: null, lastId: null, note: null, meta: null, at: Date.now() };
}

export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const isOpen = (turn) => OPEN.has(turn.state);

/** Ask again: another job under another key, from nothing. */
export function beginAnew(turn) {
  Object.assign(turn, { key: newKey(), text: "", state: "sending", jobId: null, lastId: null, note: null, meta: null });
}

/** The gateway has the job. */
export function acknowledge(turn, job) {
  turn.jobId = job.id;
  if (turn.state === "sending" || turn.state === "busy") turn.state = "waiting";
  turn.note = null;
  if (job.state === "queued" && job.queue_position > 0) turn.meta = { ahead: job.queue_position, eta: job.eta };
}

/** It was not taken, or not done. `retryAfter`: seconds. */
export function refuse(turn, problem, retryAfter) {
  if (problem.retryable) {
    turn.state = "busy";
    turn.note = plain(problem);
    turn.retryAt = Date.now() + 1000 * Math.max(retryAfter ?? 3, 0.5);
  } else {
    turn.state = "failed";
    turn.note = plain(problem);
  }
}

/** An event of the turn's job; whether it was news. One that is known already is passed over. */
export function apply(turn, event) {
  if (turn.lastId && !isAfter(event.id, turn.lastId)) return false;
  turn.lastId = event.id;
  const change = CHANGES[event.type];
  if (change) change(turn, event.data, event);
  return true;
}

const CHANGES = {
  "job.started": (turn, data) => {
    if (turn.state !== "stopping") turn.state = "answering";
    turn.meta = { worker: data.worker };
  },
  "output.delta": (turn, data) => {
    turn.text += typeof data.delta === "string" ? data.delta : (data.delta?.content ?? "");
    turn.note = null;
  },
  "output.reset": (turn) => {
    turn.text = "";
  },
  "job.retrying": (turn, data) => {
    if (data.reason === "snoozed") turn.note = data.detail || "It goes on in a while.";
    else turn.note = data.reason === "retry" ? "That try failed. Another begins in a moment." : "The worker was lost. Another takes over.";
  },
  "job.succeeded": (turn, job) => {
    if (typeof job.output === "string") turn.text = job.output;
    turn.state = "done";
    turn.note = null;
    turn.meta = { worker: job.worker, timings: job.timings };
  },
  "job.cancelled": (turn) => {
    turn.state = "stopped";
    turn.note = null;
  },
  "job.failed": (turn, job) => {
    turn.state = "failed";
    turn.note = job.error?.code === "queue_timeout" ? "It waited too long in line." : `${turn.text ? "It broke off" : "No answer"}: ${job.error?.message ?? "the job failed"}.`;
  },
  snapshot: (turn, data) => {
    if (typeof data.output === "string") turn.text = data.output;
  },
};

/** Whether an event's id comes after another. `<epoch>-<n>`, both as large as 64 bits. */
export function isAfter(id, other) {
  const [epoch, n] = id.split("-").map(BigInt);
  const [otherEpoch, otherN] = other.split("-").map(BigInt);
  return epoch > otherEpoch || (epoch === otherEpoch && n > otherN);
}

function plain(problem) {
  const words = {
    queue_full: "Everybody is asking at once, and the line is full.",
    too_many_queued: "You have as many questions waiting as you may.",
    rate_limited: "You have asked as often as you may for now.",
    engine_unavailable: "The store does not answer.",
    outcome_unknown: "The store does not answer.",
    draining: "This server is stopping.",
    task_not_found: "No worker that can answer has started yet.",
    job_not_found: "The answer is gone: it was deleted, or is too old.",
    payload_too_large: "That is too long.",
    forbidden: "Your key may not do that.",
  };
  return words[problem.code] ?? `${problem.title}: ${problem.detail}`;
}
