// The conversations of this browser. Each is an entry of localStorage; the page's address names the one that is shown,
// so a reload, a bookmark and a second tab find it again. Where nothing can be stored, they live as long as the page.

const PREFIX = "ropeway-chat:";
const MOST = 40;

export class Chats {
  #memory = new Map();

  /** `onForeign(id)`: another tab has written this conversation. */
  constructor(onForeign) {
    addEventListener("storage", (event) => {
      if (event.key?.startsWith(PREFIX)) onForeign(event.key.slice(PREFIX.length));
    });
  }

  load(id) {
    try {
      const chat = JSON.parse(localStorage.getItem(PREFIX + id)) ?? this.#memory.get(id);
      return chat && Array.isArray(chat.turns) ? chat : { id, turns: [] };
    } catch {
      return this.#memory.get(id) ?? { id, turns: [] };
    }
  }

  save(chat) {
    if (!chat.turns.length) return;
    this.#memory.set(chat.id, chat);
    try {
      localStorage.setItem(PREFIX + chat.id, JSON.stringify({ ...chat, at: Date.now() }));
    } catch {
      this.#makeRoom();
    }
  }

  /** All of them, the latest first: {id, title}. */
  list() {
    const found = [];
    try {
      for (let n = 0; n < localStorage.length; n += 1) {
        const key = localStorage.key(n);
        if (!key.startsWith(PREFIX)) continue;
        const chat = this.load(key.slice(PREFIX.length));
        if (chat.turns.length) found.push({ id: chat.id, title: chat.turns[0].question, at: chat.at ?? 0 });
      }
    } catch {
      return [];
    }
    found.sort((one, other) => other.at - one.at);
    for (const { id } of found.splice(MOST)) localStorage.removeItem(PREFIX + id);
    return found;
  }

  forgetAll() {
    for (const { id } of this.list()) localStorage.removeItem(PREFIX + id);
    this.#memory.clear();
  }

  #makeRoom() {
    const oldest = this.list().at(-1);
    try {
      if (oldest) localStorage.removeItem(PREFIX + oldest.id);
    } catch {
      // nothing can be stored here: memory has it
    }
  }
}
