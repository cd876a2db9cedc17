// Connects to one pool's live feed, reconnects, and holds the pool's true state. Knows the wire
// contract (section 2) and nothing of a page: no DOM, so that it runs in Node as well.
//
//     import { PoolFeed } from "/metrics-client.js";
//     const feed = new PoolFeed({ poolId: "pool-xxx" });
//     feed.addEventListener("change", () => console.log(feed.agents.size));
//     feed.addEventListener("connection", () => console.log(feed.connection.state));
//     feed.start();
//
// What is not of the contract is left out, message by message and agent by agent: it neither
// throws nor gets into the state, whose types stand in metrics-client.d.ts.

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
/** Departures kept, as many as the server keeps: the oldest go first. */
export const MAX_DEPARTED = 50;

/** Agents kept that were live before a restart, as many as a pool holds by default: the oldest go first. */
const MAX_UNHEARD = 10_000;
/** The server's clock and ours differ by a step, not by a delay, beyond this. */
const CLOCK_STEP_MS = 60_000;
/** How long the question why a connection was refused may take. */
const EXPLAIN_TIMEOUT_MS = 5_000;
/**
 * A task id may need all of 64 bits and a JavaScript number has 53: such ids become strings. No
 * text of an agent matches, since a quote within a JSON string has a backslash before it.
 */
const LONG_TASK_ID = /("task_id":\s*)(\d{16,})/g;
/** Why an agent departed. */
const REASONS = new Set(["goodbye", "timeout"]);
/** Answers that mean "refused" and not "try again in a moment". */
const REFUSALS = new Set([401, 403, 404, 421]);

/** What the server said when it said no. */
export class Refusal extends Error {
  /** @param {number} status HTTP status  @param {string} detail the problem's `detail` */
  constructor(status, detail) {
    super(detail);
    this.name = "Refusal";
    this.status = status;
  }
}

/**
 * The pools that this viewer may see. Throws a `Refusal` when the server says no, and what
 * `fetch` throws when there is no server.
 * @param {{base?: string, token?: string, fetch?: typeof fetch}} [options]
 */
export async function fetchPools(options = {}) {
  const base = options.base ?? globalThis.location.origin;
  const response = await ask(options.fetch ?? globalThis.fetch, base, "/api/v1/agent-pools", options.token);
  if (!response.ok) throw await refusalOf(response);
  const pools = (await response.json())?.pools;
  if (!Array.isArray(pools)) throw new TypeError("the answer holds no list of pools");
  return pools;
}

/** The wait before attempt `attempt` (from 0): doubling, half of it chance. In milliseconds. */
export function retryDelay(attempt, random = Math.random) {
  const longest = Math.min(RETRY_LAST_MS, 2 * RETRY_FIRST_MS * 2 ** Math.min(attempt, 30));
  return longest * (0.5 + 0.5 * random());
}

/**
 * One pool, live. Events: `change` (`detail.kind` is `snapshot`, `update` or `departed`, with
 * `agentId` for the last two and `restarted` for the first) and `connection` (`detail` is
 * `connection`).
 */
export class PoolFeed extends EventTarget {
  /**
   * Live agents by id: the metrics objects as they came over the wire, but for a `task_id` of 16
   * digits and more, which is a string.
   * @type {Map<string, import("./metrics-client.d.ts").Agent>}
   */
  agents = new Map();
  /**
   * Departed agents by id, the oldest departure first.
   * @type {Map<string, import("./metrics-client.d.ts").Departure>}
   */
  departed = new Map();
  /**
   * What was known of agents before the server restarted, by id, until they are heard again. A
   * server starts empty: without this a restart would hide who did not survive it.
   * @type {Map<string, import("./metrics-client.d.ts").Unheard>}
   */
  unheard = new Map();
  /** Changes with each start of the server; null before the first snapshot. */
  epoch = null;
  /**
   * `state` is `stopped`, `connecting`, `live`, `silent` (connected, but nothing arrives), `waiting`
   * (a new attempt comes at `retryAt`) or `refused` (`status` and `reason` say why; without
   * `retryAt` someone has to act).
   */
  connection = { state: "stopped", reason: null, status: null, retryAt: null };

  #url;
  #httpBase;
  #token;
  #poolId;
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
  #snapshotSeq = -1;
  #seqs = new Map();
  #onWake = () => this.wake();
  /** The network is another, or the page was frozen: either way the old connection is dead. */
  #onNewNetwork = () => this.wake({ networkChanged: true });

  /**
   * `base` is the server's origin (default: the page's), `token` a viewer token where no cookie
   * carries it. The rest is for tests.
   */
  constructor({ poolId, base, token, clock, random, WebSocket, fetch }) {
    super();
    const url = new URL(`/ws/agent-pools/${encodeURIComponent(poolId)}/metrics`, base ?? globalThis.location.origin);
    this.#httpBase = url.origin;
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (token) url.searchParams.set("token", token);
    this.#url = url.href;
    this.#token = token;
    this.#poolId = poolId;
    this.#clock = clock ?? systemClock;
    this.#random = random ?? Math.random;
    this.#WebSocket = WebSocket ?? globalThis.WebSocket;
    this.#fetch = fetch ?? globalThis.fetch;
  }

  get poolId() {
    return this.#poolId;
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

  /** Forgets the agents that were not heard since a restart. */
  dismissUnheard() {
    this.unheard = new Map();
    this.#changed({ kind: "snapshot", restarted: false });
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
      const path = `/api/v1/agent-pools/${encodeURIComponent(this.#poolId)}/metrics`;
      const response = await ask(this.#fetch, this.#httpBase, path, this.#token, "HEAD");
      if (REFUSALS.has(response.status)) {
        refusal = await refusalOf(await ask(this.#fetch, this.#httpBase, path, this.#token));
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
    let message;
    try {
      message = JSON.parse(data.replace(LONG_TASK_ID, '$1"$2"'));
    } catch {
      return;
    }
    if (!isRecord(message) || message.pool_id !== this.#poolId || !isSeq(message.seq)) return;
    const snapshot = message.type === "initial_metrics" && Array.isArray(message.metrics);
    this.#messageAt = this.#clock.now();
    this.#noteServerTime(parseTime(message.server_time), snapshot);
    if (snapshot) this.#takeSnapshot(message);
    else if (this.#liveSince === null) return;
    else if (message.type === "metrics_update") this.#takeUpdate(message);
    else if (message.type === "agent_offline") this.#takeDeparture(message);
    if (this.connection.state === "silent") this.#becomeLive();
  }

  /** What arrives late looks like a slow clock: believe a higher offset at once, a lower one slowly. */
  #noteServerTime(serverTime, fresh) {
    if (serverTime === null) return;
    const offset = serverTime - this.#messageAt;
    const fall = (this.#offset ?? offset) - offset;
    this.#offset = fresh || fall <= 0 || fall > CLOCK_STEP_MS ? offset : this.#offset - fall / 20;
  }

  /** A snapshot is all that the server knows: it replaces agents and departures alike. */
  #takeSnapshot(message) {
    const epoch = typeof message.epoch === "string" ? message.epoch : (this.epoch ?? "");
    const restarted = this.epoch !== null && epoch !== this.epoch;
    if (restarted) this.unheard = this.#unheardSince(this.#timeOf(message));
    this.epoch = epoch;
    this.#snapshotSeq = message.seq ?? -1;
    this.#seqs.clear();
    this.agents = new Map(message.metrics.filter(isAgent).map((metrics) => [metrics.agent_id, metrics]));
    this.departed = new Map();
    const departed = Array.isArray(message.departed) ? message.departed.filter(isDeparture) : [];
    // The server says the newest first, also of one millisecond; sorting leaves such in their order.
    for (const departure of departed.reverse().sort((a, b) => parseTime(a.at) - parseTime(b.at))) {
      if (!this.agents.has(departure.agent_id)) this.#keepDeparture(departure);
    }
    for (const agentId of this.unheard.keys()) {
      if (this.agents.has(agentId) || this.departed.has(agentId)) this.unheard.delete(agentId);
    }
    if (this.#liveSince === null) {
      this.#liveSince = this.#clock.now();
      this.#becomeLive();
    }
    this.#changed({ kind: "snapshot", restarted });
  }

  /** All that was known until the restart at `since`, the latest last. */
  #unheardSince(since) {
    const known = [...this.departed.values(), ...this.agents.values()];
    const entries = [...this.unheard.values(), ...known.map((last) => ({ last, since }))];
    const wasLive = ({ last }) => last.last_update_time !== undefined;
    const live = entries.filter(wasLive).slice(-MAX_UNHEARD);
    const departed = entries.filter((entry) => !wasLive(entry)).slice(-MAX_DEPARTED);
    return new Map([...departed, ...live].map((entry) => [entry.last.agent_id, entry]));
  }

  #takeUpdate({ metrics, seq }) {
    if (!isAgent(metrics)) return;
    const agentId = metrics.agent_id;
    if (!this.#isNews(agentId, seq)) return;
    this.agents.set(agentId, metrics);
    this.departed.delete(agentId);
    this.unheard.delete(agentId);
    this.#changed({ kind: "update", agentId });
  }

  #takeDeparture(message) {
    const { metrics, seq, reason } = message;
    if (!isRecord(metrics) || !isId(metrics.agent_id)) return;
    const agentId = metrics.agent_id;
    if (!this.#isNews(agentId, seq)) return;
    const last = this.agents.get(agentId) ?? this.departed.get(agentId) ?? this.unheard.get(agentId)?.last;
    this.agents.delete(agentId);
    this.unheard.delete(agentId);
    this.#keepDeparture({
      agent_id: agentId,
      agent_name: last?.agent_name ?? agentId,
      reason: REASONS.has(reason) ? reason : "timeout",
      at: this.#timeOf(message),
      running_tasks: last?.running_tasks ?? [],
    });
    this.#changed({ kind: "departed", agentId });
  }

  #timeOf({ server_time }) {
    return parseTime(server_time) === null ? new Date(this.#clock.wall()).toISOString() : server_time;
  }

  /**
   * Gaps in `seq` are harmless, since only an agent's newest state matters. What is older than
   * the snapshot, or than what we have of the same agent, is not news. It is judged agent by
   * agent, because a server that holds updates back may send them in another order.
   */
  #isNews(agentId, seq) {
    if (seq === undefined) return true;
    if (seq <= (this.#seqs.get(agentId) ?? this.#snapshotSeq)) return false;
    this.#seqs.set(agentId, seq);
    return true;
  }

  #keepDeparture(departure) {
    this.departed.delete(departure.agent_id);
    this.departed.set(departure.agent_id, departure);
    for (const agentId of this.departed.keys()) {
      if (this.departed.size <= MAX_DEPARTED) break;
      this.departed.delete(agentId);
      this.#seqs.delete(agentId);
    }
  }

  #changed(detail) {
    this.dispatchEvent(new CustomEvent("change", { detail }));
  }
}

const isRecord = (value) => typeof value === "object" && value !== null;
const isText = (value) => typeof value === "string";
const isId = (value) => isText(value) && value !== "";
/** Servers of the original design send none. */
const isSeq = (value) => value === undefined || (Number.isSafeInteger(value) && value >= 0);

/** Milliseconds since 1970, or null. */
function parseTime(text) {
  const time = isText(text) ? Date.parse(text) : NaN;
  return Number.isFinite(time) ? time : null;
}

function areTasks(value) {
  return Array.isArray(value) && value.every(isTask);
}

function isTask(value) {
  if (!isRecord(value) || !(Number.isFinite(value.task_id) || isText(value.task_id))) return false;
  return isText(value.task_type) && isText(value.workspace_id) && isText(value.started_at);
}

function isAgent(value) {
  if (!isRecord(value) || !isId(value.agent_id) || !isText(value.agent_name)) return false;
  const { cpu_usage, memory_usage, running_tasks, last_update_time, status, interval_ms } = value;
  if (!Number.isFinite(cpu_usage) || !Number.isFinite(memory_usage) || !areTasks(running_tasks)) return false;
  return isText(last_update_time) && isText(status) && (interval_ms === null || Number.isFinite(interval_ms));
}

function isDeparture(value) {
  if (!isRecord(value) || !isId(value.agent_id) || !isText(value.agent_name)) return false;
  return REASONS.has(value.reason) && parseTime(value.at) !== null && areTasks(value.running_tasks);
}

const systemClock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  setTimeout: (action, delay) => globalThis.setTimeout(action, delay),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
};

function ask(fetch, base, path, token, method = "GET") {
  return fetch(new URL(path, base), {
    method,
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    cache: "no-store",
    signal: AbortSignal.timeout(EXPLAIN_TIMEOUT_MS),
  });
}

async function refusalOf(response) {
  let detail = `HTTP ${response.status}`;
  try {
    const said = (await response.json()).detail;
    if (typeof said === "string") detail = said;
  } catch {
    // No problem body: the status has to do.
  }
  return new Refusal(response.status, detail);
}

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
