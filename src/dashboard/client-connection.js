// What every feed is: connects, reconnects, tells live from silent, and knows the server's clock. It
// does not know what a message says: that is for the class that extends `Feed`.

import { isRecord, isSeq, parseTime } from "./client-checks.js";
import { ask, refusalOf } from "./client-http.js";

/** Live means that something arrived within this time: two of the server's `keepalive`s, and slack. */
export const LIVE_WINDOW_MS = 12_000;
/**
 * A connection on which nothing arrived for this long is given up. Longer than `LIVE_WINDOW_MS`:
 * while a long snapshot is on its way, no message arrives either.
 */
export const SILENCE_LIMIT_MS = 45_000;
/** A connection attempt that takes longer is given up. */
export const CONNECT_TIMEOUT_MS = 10_000;
/** The shortest wait before a new attempt; waits double, up to `RETRY_LAST_MS`. */
export const RETRY_FIRST_MS = 500;
/** The longest wait before a new attempt. */
export const RETRY_LAST_MS = 30_000;
/** A connection that lasted this long was a good one: the waits start from the first again. */
export const STEADY_MS = 10_000;

/** The server's clock and ours differ by a step, not by a delay, beyond this. */
const CLOCK_STEP_MS = 60_000;
/**
 * A task id may need all of 64 bits and a JavaScript number has 53: such ids become strings. No
 * text of an agent matches, since a quote within a JSON string has a backslash before it.
 */
const LONG_TASK_ID = /("task_id":\s*)(\d{16,})/g;
/** Answers that mean "refused" and not "try again in a moment". */
const REFUSALS = new Set([401, 403, 404, 421]);

/** The wait before attempt `attempt` (from 0): doubling, half of it chance. In milliseconds. */
export function retryDelay(attempt, random = Math.random) {
  const longest = Math.min(RETRY_LAST_MS, 2 * RETRY_FIRST_MS * 2 ** Math.min(attempt, 30));
  return longest * (0.5 + 0.5 * random());
}

/**
 * A feed without its contents. Events: `change` (`detail` is what the extending class says) and
 * `connection` (`detail` is `connection`).
 */
export class Feed extends EventTarget {
  /** Changes with each start of the server; null before the first whole state. */
  epoch = null;
  /**
   * `state` is `stopped`, `connecting`, `live`, `silent` (connected, but nothing arrives), `waiting`
   * (a new attempt comes at `retryAt`) or `refused` (`status` and `reason` say why; without
   * `retryAt` someone has to act).
   */
  connection = { state: "stopped", reason: null, status: null, retryAt: null };

  #url;
  #httpBase;
  #contract;
  #token;
  #clock;
  #random;
  #WebSocket;
  #fetch;

  #socket = null;
  #generation = 0;
  #timer = null;
  #attempt = 0;
  #liveSince = null;
  #arrival = null;
  #messageAt = 0;
  #offset = null;
  /** Which of several servers sent the last whole state; null where it does not say. */
  #serverId = null;
  #onWake = () => this.wake();
  /** The network is another, or the page was frozen: either way the old connection is dead. */
  #onNewNetwork = () => this.wake({ networkChanged: true });

  /**
   * `base` is the server's origin (default: the page's), `token` a viewer token where no cookie
   * carries it. The rest is for tests.
   *
   * `contract` is how the extending class takes part: `socketPath`, with a query; `httpPath`, the
   * same resource over HTTP, asked why an upgrade failed; `isOurs(message)`; `isWhole(message,
   * joined)`, whether the message is the whole state, `joined` when this connection already brought
   * one; and `take(message, whole, restarted)`, which brings the state up to date and returns the
   * `detail` of a `change`, or null where nothing changed. What comes before a whole state is not
   * taken.
   */
  constructor({ base, token, clock, random, WebSocket, fetch }, contract) {
    super();
    const url = new URL(contract.socketPath, base ?? globalThis.location.origin);
    this.#httpBase = url.origin;
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (token) url.searchParams.set("token", token);
    this.#url = url.href;
    this.#contract = contract;
    this.#token = token;
    this.#clock = clock ?? systemClock;
    this.#random = random ?? Math.random;
    this.#WebSocket = WebSocket ?? globalThis.WebSocket;
    this.#fetch = fetch ?? globalThis.fetch;
  }

  /** Connects, and stays connected until `stop`. */
  start() {
    if (this.connection.state !== "stopped") return;
    globalThis.addEventListener?.("online", this.#onNewNetwork);
    globalThis.addEventListener?.("pageshow", this.#onWake);
    globalThis.document?.addEventListener("visibilitychange", this.#onWake);
    globalThis.document?.addEventListener("resume", this.#onNewNetwork);
    this.#connect();
  }

  /** Disconnects for good; the state stays as it was last known. */
  stop() {
    if (this.connection.state === "stopped") return;
    globalThis.removeEventListener?.("online", this.#onNewNetwork);
    globalThis.removeEventListener?.("pageshow", this.#onWake);
    globalThis.document?.removeEventListener("visibilitychange", this.#onWake);
    globalThis.document?.removeEventListener("resume", this.#onNewNetwork);
    this.#drop();
    this.#say({ state: "stopped" });
  }

  /** A new attempt now, whatever the wait. */
  reconnect() {
    if (this.connection.state === "stopped") return;
    this.#drop();
    this.#connect();
  }

  /**
   * The tab or the network came back: do at once what the timers would do later. A changed
   * network leaves old connections dead without a word, so they are made anew.
   */
  wake({ networkChanged = false } = {}) {
    const { state, retryAt } = this.connection;
    if (state === "waiting" || (state === "refused" && retryAt !== null)) {
      this.reconnect();
    } else if (state === "live" || state === "silent") {
      if (networkChanged || this.#silence() >= SILENCE_LIMIT_MS) this.reconnect();
      else this.#watch();
    }
  }

  /** Milliseconds until the next attempt; 0 when none is due. */
  retryInMs() {
    const { retryAt } = this.connection;
    return retryAt === null ? 0 : Math.max(0, retryAt - this.#clock.now());
  }

  /** The server's clock, in milliseconds since 1970, as far as we know it; null before a message. */
  serverNow() {
    return this.#offset === null ? null : this.#offset + this.#clock.now();
  }

  /** Up to when the state is true: now while live, else `heardAt`. Ages are measured against this. */
  asOf() {
    return this.connection.state === "live" ? this.serverNow() : this.heardAt();
  }

  /**
   * The moment of the last message. Lateness is measured against this also while live, so that
   * the silence of the server, or our absence, makes no agent late.
   */
  heardAt() {
    return this.#offset === null ? null : this.#offset + this.#messageAt;
  }

  #connect() {
    const generation = ++this.#generation;
    const current = () => generation === this.#generation;
    this.#liveSince = null;
    this.#say({ state: "connecting", reason: this.connection.reason });
    // Whoever heard that may have stopped the feed, or begun anew.
    if (!current()) return;
    let opened = false;
    let socket;
    try {
      socket = new this.#WebSocket(this.#url);
    } catch (error) {
      this.#retry({ reason: String(error.message ?? error) });
      return;
    }
    this.#socket = socket;
    this.#after(CONNECT_TIMEOUT_MS, () => this.#lost("no answer"));
    socket.addEventListener("open", () => {
      if (!current()) return;
      opened = true;
      this.#noteArrival();
      this.#watch();
    });
    socket.addEventListener("message", (event) => {
      if (!current()) return;
      this.#noteArrival();
      this.#receive(event.data);
    });
    // A close follows, and it is enough. In Node, the package `ws` throws where nobody listens.
    socket.addEventListener("error", () => {});
    socket.addEventListener("close", (event) => {
      if (!current()) return;
      if (opened) this.#lost(closeReason(event.code));
      else this.#explain(generation);
    });
  }

  /** Forgets the socket, its events and the timer. */
  #drop() {
    this.#generation += 1;
    this.#clock.clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    try {
      socket?.close();
    } catch {
      // Closing a socket that never opened throws in some environments; it is dropped either way.
    }
  }

  #lost(reason) {
    if (this.#liveSince !== null && this.#clock.now() - this.#liveSince >= STEADY_MS) {
      this.#attempt = 0;
    }
    this.#drop();
    this.#retry({ reason });
  }

  /** A browser does not say why an upgrade failed; the same resource over HTTP does. */
  async #explain(generation) {
    this.#clock.clearTimeout(this.#timer);
    let refusal = null;
    let reason = "no answer";
    try {
      const response = await this.#ask("HEAD");
      if (REFUSALS.has(response.status)) {
        refusal = await refusalOf(await this.#ask("GET"));
      } else {
        reason = response.ok ? "the server or a proxy refused the WebSocket" : `HTTP ${response.status}`;
      }
    } catch {
      // No server: the reason stands.
    }
    if (generation !== this.#generation) return;
    this.#drop();
    if (refusal === null) this.#retry({ reason });
    else this.#retry({ reason: refusal.message, status: refusal.status });
  }

  #ask(method) {
    const { httpPath } = this.#contract;
    return ask(this.#fetch, new URL(httpPath, this.#httpBase), { token: this.#token, method });
  }

  #retry({ reason, status = null }) {
    if (status === 401) {
      this.#say({ state: "refused", reason, status });
      return;
    }
    // A refusal is a matter of configuration: look again, but without haste.
    const delay = status === null ? retryDelay(this.#attempt++, this.#random) : RETRY_LAST_MS;
    const retryAt = this.#clock.now() + delay;
    this.#after(delay, () => this.#connect());
    this.#say({ state: status === null ? "waiting" : "refused", reason, status, retryAt });
  }

  /** One timer for as long as the connection lasts, not one a message. */
  #watch() {
    const silence = this.#silence();
    if (silence >= SILENCE_LIMIT_MS) {
      this.#lost("nothing arrived any more");
      return;
    }
    const silent = silence >= LIVE_WINDOW_MS;
    this.#after((silent ? SILENCE_LIMIT_MS : LIVE_WINDOW_MS) - silence, () => this.#watch());
    if (silent && this.connection.state === "live") this.#say({ state: "silent", reason: "nothing arrives" });
  }

  /** The timer may be set for the end of a silence that is over. */
  #becomeLive() {
    this.#watch();
    this.#say({ state: "live" });
  }

  #after(delay, action) {
    this.#clock.clearTimeout(this.#timer);
    this.#timer = this.#clock.setTimeout(action, delay);
  }

  #noteArrival() {
    this.#arrival = { now: this.#clock.now(), wall: this.#clock.wall() };
  }

  /** The monotonic clock may stand still while the machine sleeps; the wall clock does not. */
  #silence() {
    const { now, wall } = this.#arrival;
    return Math.max(this.#clock.now() - now, this.#clock.wall() - wall);
  }

  #say({ state, reason = null, status = null, retryAt = null }) {
    this.connection = { state, reason, status, retryAt };
    this.dispatchEvent(new CustomEvent("connection", { detail: this.connection }));
  }

  #receive(data) {
    const message = parseMessage(data);
    if (message === null || !this.#contract.isOurs(message)) return;
    const joined = this.#liveSince !== null;
    const whole = this.#contract.isWhole(message, joined);
    const serverTime = parseTime(message.server_time);
    this.#messageAt = this.#clock.now();
    this.#noteServerTime(serverTime, whole);
    if (!whole && !joined) return;
    // Servers of the original design send none.
    if (serverTime === null) message.server_time = new Date(this.#clock.wall()).toISOString();
    const restarted = whole && this.#noteServer(message);
    const change = this.#contract.take(message, whole, restarted);
    if (!joined) {
      this.#liveSince = this.#clock.now();
      this.#becomeLive();
    }
    if (change !== null) this.dispatchEvent(new CustomEvent("change", { detail: change }));
    if (this.connection.state === "silent") this.#becomeLive();
  }

  /**
   * Whether a whole state shows that the server restarted. Of several servers, another one has another
   * epoch too, and has lost nothing.
   */
  #noteServer({ epoch, server_id }) {
    const before = { epoch: this.epoch, serverId: this.#serverId };
    this.epoch = typeof epoch === "string" ? epoch : (this.epoch ?? "");
    this.#serverId = typeof server_id === "string" ? server_id : null;
    const moved = before.serverId !== null && this.#serverId !== null && this.#serverId !== before.serverId;
    return before.epoch !== null && this.epoch !== before.epoch && !moved;
  }

  /** What arrives late looks like a slow clock: believe a higher offset at once, a lower one slowly. */
  #noteServerTime(serverTime, fresh) {
    if (serverTime === null) return;
    const offset = serverTime - this.#messageAt;
    const fall = (this.#offset ?? offset) - offset;
    this.#offset = fresh || fall <= 0 || fall > CLOCK_STEP_MS ? offset : this.#offset - fall / 20;
  }
}

/** A message, or null for what is none. */
function parseMessage(data) {
  try {
    const message = JSON.parse(data.replace(LONG_TASK_ID, '$1"$2"'));
    return isRecord(message) && isSeq(message.seq) ? message : null;
  } catch {
    return null;
  }
}

const systemClock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  setTimeout: (action, delay) => globalThis.setTimeout(action, delay),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
};

/** RFC 6455 section 7.4.1, as far as the server uses it. */
function closeReason(code) {
  switch (code) {
    case 1001:
      return "the server is shutting down";
    case 1006:
      return "the connection broke";
    default:
      return `the server closed the connection (${code})`;
  }
}
