// The page: one conversation, one socket, and what goes between them.

import { Chats } from "./chats.js";
import { Link, NOT_THAT_KEY } from "./link.js";
import { acknowledge, apply, beginAnew, isOpen, newKey, newTurn, refuse } from "./turns.js";
import { View, element, find } from "./view.js";

const SAVE_MS = 200;
const TURNS_SENT = 20; // of what was said before, with each question
const KEY_ITEM = "ropeway-key";

const config = await (await fetch("config.json")).json();
const chats = new Chats(foreign);
const view = new View({ retry: askAgain });
let chat = chats.load(address());
let saving = 0;
let untilMs = 0;

const link = new Link(socketUrls(), { open: resume, message: hear, state: connectionIs, refused });

// -- what goes up

function ask(text) {
  const turn = newTurn(text);
  chat.turns.push(turn);
  submit(turn);
  view.toEnd();
}

/** Ask for an answer. Under the turn's own key, so that asking twice is one job. */
function submit(turn) {
  turn.state = "sending";
  const before = chat.turns.slice(0, chat.turns.indexOf(turn)).slice(-TURNS_SENT);
  const messages = before.filter((one) => one.state === "done").flatMap((one) => [
    { role: "user", content: one.question },
    { role: "assistant", content: one.text },
  ]);
  messages.push({ role: "user", content: turn.question });
  link.send({
    type: "submit",
    ref: turn.key,
    idempotency_key: turn.key,
    job: { task: config.task, input: { request: { model: config.model, messages } }, tags: ["chat"] },
  });
  changed(turn);
}

function askAgain(turn) {
  if (turn.state !== "busy") beginAnew(turn);
  submit(turn);
}

function stop() {
  for (const turn of chat.turns.filter(isOpen)) {
    if (turn.jobId) {
      turn.state = "stopping";
      link.send({ type: "cancel", ref: turn.key, job_id: turn.jobId, reason: "stopped by its reader" });
    } else {
      turn.state = "stopped"; // should it have been taken all the same, it is cancelled when that is heard
      turn.unwanted = true;
    }
    changed(turn);
  }
}

/** On a new socket: what was on its way is sent again, what was followed goes on after the last event seen. */
function resume() {
  for (const turn of chat.turns.filter((one) => isOpen(one) || one.unwanted)) {
    if (turn.jobId) {
      link.send({ type: "subscribe", ref: turn.key, job_id: turn.jobId, after: turn.lastId });
      if (turn.state === "stopping") link.send({ type: "cancel", ref: turn.key, job_id: turn.jobId });
    } else if (turn.state === "sending") {
      submit(turn);
    }
  }
}

// -- what comes down

function hear(message) {
  if (message.type === "event") {
    const turn = chat.turns.find((one) => one.jobId === message.event.job_id);
    if (turn && apply(turn, message.event)) changed(turn);
    return;
  }
  const turn = chat.turns.find((one) => one.key === message.ref);
  if (!turn) return;
  if (message.type === "ack" && message.job) {
    acknowledge(turn, message.job);
    settle(turn, message);
  } else if (message.type === "error" && isOpen(turn)) {
    if (turn.jobId && message.problem.retryable) setTimeout(resume, 1000 * (message.retry_after ?? 2));
    else refuse(turn, message.problem, message.retry_after);
  }
  changed(turn);
}

/** What an ack tells beyond that it was heard. */
function settle(turn, { job, subscribed }) {
  if (turn.unwanted) {
    turn.unwanted = false;
    turn.state = "stopping";
    link.send({ type: "cancel", ref: turn.key, job_id: job.id, reason: "stopped by its reader" });
  } else if (subscribed === false && job.finished_at && isOpen(turn)) {
    // its log is at its end, and we have seen all of it but did not keep how it ended
    apply({ ...turn, lastId: null }, { id: job.last_event_id, type: `job.${job.state}`, data: job });
    Object.assign(turn, { state: job.state === "succeeded" ? "done" : job.state === "cancelled" ? "stopped" : "failed" });
    if (typeof job.output === "string") turn.text = job.output;
  }
}

// -- what is kept

function changed(turn) {
  view.update(turn);
  controls();
  if (!isOpen(turn)) {
    save();
    find("said").textContent = turn.state === "done" ? "The answer is complete." : (turn.note ?? "");
  } else if (!saving) {
    saving = setTimeout(save, SAVE_MS);
  }
}

function save() {
  clearTimeout(saving);
  saving = 0;
  chats.save(chat);
}

/** Another tab has written: if it is this conversation, it may have asked something. */
function foreign(id) {
  if (id !== chat.id) return;
  const known = new Set(chat.turns.map((turn) => turn.at));
  for (const turn of chats.load(id).turns) {
    const own = chat.turns.find((one) => one.at === turn.at);
    if (!known.has(turn.at)) {
      chat.turns.push(turn);
      view.update(turn);
      if (turn.jobId) link.send({ type: "subscribe", ref: turn.key, job_id: turn.jobId, after: turn.lastId });
    } else if (own.key !== turn.key || (!own.jobId && turn.jobId)) {
      Object.assign(own, turn); // the other tab asked again, or heard of its job first
      view.update(own);
      if (own.jobId) link.send({ type: "subscribe", ref: own.key, job_id: own.jobId, after: own.lastId });
    }
  }
  controls();
}

function open(id) {
  save();
  chat = chats.load(id);
  view.show(chat);
  controls();
  if (link.isOpen) resume();
}

function address() {
  const named = /^#([0-9a-f]{8,64})$/.exec(location.hash)?.[1];
  const id = named ?? newKey().slice(0, 16);
  if (!named) history.replaceState(null, "", `#${id}`);
  return id;
}

// -- the frame around it

function controls() {
  const isBusy = chat.turns.some(isOpen);
  find("send").hidden = isBusy;
  find("stop").hidden = !isBusy;
  find("send").disabled = !find("text").value.trim();
}

function connectionIs(state, retryAtMs) {
  untilMs = retryAtMs ?? 0;
  find("connection").dataset.state = state;
  find("again").hidden = state !== "lost";
  tick();
}

function tick() {
  const { state } = find("connection").dataset;
  const seconds = Math.max(1, Math.ceil((untilMs - Date.now()) / 1000));
  const lost = untilMs ? `Connection lost. Trying again in ${seconds} s` : "Not connected";
  const said = { open: "Connected", connecting: "Connecting…", lost: navigator.onLine ? lost : "You are offline" }[state];
  const label = find("connection").firstElementChild;
  if (label.textContent !== said) label.textContent = said;
  for (const turn of chat.turns) {
    if (turn.state !== "busy") continue;
    if (Date.now() >= turn.retryAt && link.isOpen) submit(turn);
    else view.update(turn);
  }
}

function refused(code) {
  find("door-why").textContent = code === NOT_THAT_KEY ? "That key may not chat here." : "Ask whoever runs it for one.";
  sessionStorage.removeItem(KEY_ITEM);
  if (!find("door").open) find("door").showModal();
}

function socketUrls() {
  const own = new URL("v1/ws", location.href);
  own.hash = "";
  return [own.href, ...config.peers.map((peer) => `${peer}/v1/ws`)].map((url) => url.replace(/^http/, "ws"));
}

function showChats() {
  const entries = chats.list().map(({ id, title }) => {
    const anchor = element("a", "", title);
    anchor.href = `#${id}`;
    if (id === chat.id) anchor.setAttribute("aria-current", "page");
    const item = element("li");
    item.append(anchor);
    return item;
  });
  find("chats").replaceChildren(...(entries.length ? entries : [element("li", "hint", "None yet.")]));
}

function grow() {
  const text = find("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
  controls();
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text").value.trim();
  if (!text || chat.turns.some(isOpen)) return;
  find("text").value = "";
  grow();
  ask(text);
});
find("text").addEventListener("input", grow);
find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    find("ask").requestSubmit();
  }
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || find("door").open) return;
  if (find("history").open) find("history").open = false;
  else if (chat.turns.some(isOpen)) stop();
});
addEventListener("click", (event) => {
  if (!find("history").contains(event.target)) find("history").open = false;
});
find("stop").onclick = stop;
find("again").onclick = () => link.now();
find("new").onclick = () => (location.hash = newKey().slice(0, 16));
find("history").addEventListener("toggle", showChats);
find("forget").onclick = () => {
  chats.forgetAll();
  find("history").open = false;
  chat.turns = [];
  find("new").click();
};
find("key-form").addEventListener("submit", () => {
  sessionStorage.setItem(KEY_ITEM, find("key").value.trim());
  link.key = find("key").value.trim();
  find("key").value = "";
});
addEventListener("hashchange", () => {
  find("history").open = false;
  open(address());
  find("text").focus();
});
addEventListener("pagehide", save);
setInterval(tick, 500);

find("model").textContent = config.is_echo ? "echo (no model)" : config.model;
find("about").textContent = config.is_echo
  ? "No language model is set, so an echo answers. The way that your words take is the real one: socket, queue, worker, and back."
  : `${config.model} answers.`;
const tries = config.is_echo
  ? ["Hello there", "Count to 200", "Stumble once", "Please fail"]
  : ["Why is the sky blue?", "Write a short poem about a mountain railway", "Give me three names for a cat"];
find("tries").replaceChildren(
  ...tries.map((words) => {
    const button = element("button", "", words);
    button.type = "button";
    button.onclick = () => !chat.turns.some(isOpen) && ask(words);
    const item = element("li");
    item.append(button);
    return item;
  }),
);

view.show(chat);
controls();
find("text").focus();
const key = sessionStorage.getItem(KEY_ITEM);
if (key) link.key = key;
else link.now();
