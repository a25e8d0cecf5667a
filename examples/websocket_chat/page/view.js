// The conversation on the page. All text goes in by textContent: what a model writes is words and nothing else.

const NEAR_PX = 80;

export const find = (id) => document.getElementById(id);

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export class View {
  #turns = find("turns");
  #main = find("main");
  #rows = new Map(); // by turn: its two rows
  #follows = true;

  /** `on`: {retry(turn)}. */
  constructor(on) {
    this.on = on;
    this.#main.addEventListener("scroll", () => {
      this.#follows = this.#main.scrollHeight - this.#main.scrollTop - this.#main.clientHeight < NEAR_PX;
      find("latest").hidden = this.#follows;
    });
    find("latest").onclick = () => this.toEnd();
  }

  /** Show this conversation in the place of what is there. */
  show(chat) {
    this.#turns.replaceChildren();
    this.#rows.clear();
    for (const turn of chat.turns) this.update(turn);
    find("welcome").hidden = chat.turns.length > 0;
    this.toEnd();
  }

  /** Show a turn as it stands. */
  update(turn) {
    find("welcome").hidden = true;
    const row = this.#rows.get(turn.at) ?? this.#add(turn);
    if (row.words.data !== turn.text) {
      if (turn.text.startsWith(row.words.data)) row.words.appendData(turn.text.slice(row.words.data.length));
      else row.words.data = turn.text;
    }
    const isLive = turn.state === "answering" || turn.state === "waiting";
    row.answer.dataset.live = String(isLive);
    row.answer.dataset.state = turn.state;
    row.bubble.hidden = !turn.text && !isLive;
    this.#tell(row, turn);
    if (this.#follows) this.#main.scrollTop = this.#main.scrollHeight;
  }

  toEnd() {
    this.#follows = true;
    find("latest").hidden = true;
    this.#main.scrollTop = this.#main.scrollHeight;
  }

  #add(turn) {
    const mine = element("li", "mine");
    mine.append(element("span", "unseen", "You:"), element("p", "bubble", turn.question));
    const answer = element("li", "answer");
    const bubble = element("p", "bubble");
    const words = document.createTextNode("");
    bubble.append(words);
    const note = element("p", "note");
    answer.append(element("span", "unseen", "Answer:"), bubble, note);
    this.#turns.append(mine, answer);
    const row = { answer, bubble, words, note, said: "" };
    this.#rows.set(turn.at, row);
    return row;
  }

  #tell(row, turn) {
    const { kind, text, again, link } = noteOf(turn);
    const said = `${kind}|${text}|${again ?? ""}`;
    if (row.said === said) return;
    row.said = said;
    row.note.hidden = !text;
    row.note.dataset.kind = kind;
    row.note.replaceChildren(element("span", "", text));
    if (again) {
      const button = element("button", "quiet", again);
      button.type = "button";
      button.onclick = () => this.on.retry(turn);
      row.note.append(button);
    }
    if (link) {
      const shown = element("a", "", "job");
      shown.href = link;
      shown.title = "The job as the API has it";
      row.note.append(shown);
    }
  }
}

/** What is to be said below an answer. */
function noteOf(turn) {
  switch (turn.state) {
    case "sending":
      return { kind: "", text: "Sending…" };
    case "busy": {
      const seconds = Math.max(1, Math.ceil((turn.retryAt - Date.now()) / 1000));
      return { kind: "warn", text: `${turn.note} Asking again in ${seconds} s.`, again: "Ask now" };
    }
    case "waiting":
      return { kind: "", text: turn.meta?.ahead ? `In line, ${turn.meta.ahead} before you${about(turn.meta.eta)}.` : (turn.note ?? "In line…") };
    case "answering":
      return turn.note ? { kind: "warn", text: turn.note } : { kind: "", text: "" };
    case "stopping":
      return { kind: "", text: "Stopping…" };
    case "stopped":
      return { kind: "", text: "Stopped.", again: "Ask again" };
    case "failed":
      return { kind: "bad", text: turn.note ?? "No answer.", again: "Ask again" };
    default:
      return { kind: "", text: doneIn(turn.meta), link: `/v1/jobs/${turn.jobId}` };
  }
}

function about(eta) {
  return eta ? `, about ${Math.max(1, Math.round(eta))} s` : "";
}

function doneIn(meta) {
  const { first_output: first, run } = meta?.timings ?? {};
  const parts = [];
  if (typeof first === "number") parts.push(`first word after ${seconds(first)}`);
  if (typeof run === "number") parts.push(`done in ${seconds(run)}`);
  if (meta?.worker) parts.push(meta.worker);
  return parts.join(" · ");
}

const seconds = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`);
