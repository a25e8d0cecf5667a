// One WebSocket to a gateway, kept: opened again when it is lost, at another gateway if there is one.
//
// It knows of `ropeway.v1` only what keeps a socket alive. What is followed, and what must be asked again on a new
// socket, is for whoever holds it: `on.open` is called for each socket that opens.

const FIRST_WAIT_MS = 250;
const LAST_WAIT_MS = 8000;
const QUIET_MS = 20000; // without a word for so long, ask whether anybody is there
const ANSWER_MS = 8000; // and without an answer for so long, nobody is

export const NO_KEY = 4401;
export const NOT_THAT_KEY = 4403;

export class Link {
  #urls;
  #on;
  #socket = null;
  #place = 0;
  #tries = 0;
  #timer = 0;
  #pulse = 0;
  #key = "";

  /** `urls`: where a gateway may be. `on`: {open, message, state(state, untilMs), refused(code, reason)}. */
  constructor(urls, on) {
    this.#urls = urls;
    this.#on = on;
    addEventListener("online", () => this.now());
    addEventListener("offline", () => this.#lost("offline"));
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.now());
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN && this.#tries === 0;
  }

  set key(key) {
    this.#key = key;
    this.#tries = 0;
    this.#open();
  }

  /** Open a socket at once, unless one is open or opening. */
  now() {
    if (!this.#socket) this.#open();
  }

  /** Send a message; whether there was a socket to take it. */
  send(message) {
    if (!this.isOpen) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #open() {
    clearTimeout(this.#timer);
    this.#drop();
    this.#on.state("connecting");
    const protocols = ["ropeway.v1", ...(this.#key ? [`bearer.${this.#key}`] : [])];
    const socket = (this.#socket = new WebSocket(this.#urls[this.#place % this.#urls.length], protocols));
    socket.onopen = () => this.#watch();
    socket.onmessage = (event) => this.#hear(socket, event.data);
    socket.onclose = (event) => socket === this.#socket && this.#closed(event);
    // A socket that opens may be one that is closed at once: it counts when it has said something.
    socket.addEventListener("open", () => socket.send('{"type":"ping"}'), { once: true });
  }

  #hear(socket, data) {
    if (socket !== this.#socket) return;
    this.#watch();
    const message = JSON.parse(data);
    if (message.type === "pong") {
      if (this.#tries !== 0 || !socket.wasHeard) {
        socket.wasHeard = true;
        this.#tries = 0;
        this.#on.state("open");
        this.#on.open();
      }
    } else if (message.type === "reconnect") {
      socket.comeBackMs = message.after_ms;
    } else {
      this.#on.message(message);
    }
  }

  #closed(event) {
    this.#drop();
    if (event.code === NO_KEY || event.code === NOT_THAT_KEY) {
      this.#on.state("lost");
      this.#on.refused(event.code, event.reason);
    } else {
      this.#lost("closed", event.target.comeBackMs);
    }
  }

  #lost(why, comeBackMs) {
    this.#drop();
    clearTimeout(this.#timer);
    if (why === "offline") {
      this.#on.state("lost");
      return;
    }
    this.#place += 1; // the next gateway, if there is another
    this.#tries += 1;
    const elsewhere = this.#urls.length > 1 && this.#tries < this.#urls.length;
    const most = Math.min(FIRST_WAIT_MS * 2 ** (this.#tries - 1), LAST_WAIT_MS);
    const wait = elsewhere ? 50 : (comeBackMs ?? most / 2 + (Math.random() * most) / 2);
    this.#on.state("lost", Date.now() + wait);
    this.#timer = setTimeout(() => this.#open(), wait);
  }

  #drop() {
    clearTimeout(this.#pulse);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) socket.onclose = socket.onmessage = socket.onopen = null;
    socket?.close();
  }

  /** Somebody is there; look again when it has been quiet. A browser does not tell of a line that is dead. */
  #watch() {
    clearTimeout(this.#pulse);
    this.#pulse = setTimeout(() => {
      this.#socket?.readyState === WebSocket.OPEN && this.#socket.send('{"type":"ping"}');
      this.#pulse = setTimeout(() => this.#lost("dead"), ANSWER_MS);
    }, QUIET_MS);
  }
}
