// The server's live feeds, for any page: connects, reconnects, and holds the true state. Knows the wire
// contract (section 2) and nothing of a page: no DOM, so that it runs in Node as well.
//
//     import { PoolFeed } from "/metrics-client.js";
//     const feed = new PoolFeed({ poolId: "pool-xxx" });
//     feed.addEventListener("change", () => console.log(feed.agents.size));
//     feed.addEventListener("connection", () => console.log(feed.connection.state));
//     feed.start();
//
// What is not of the contract is left out, message by message, agent by agent and pool by pool: it
// neither throws nor gets into the state, whose types stand in metrics-client.d.ts.

import { isId, isRecord, readAgent, readDeparture, readPool, readReason, readTotals, parseTime } from "./client-checks.js";
import { Feed } from "./client-connection.js";

export {
  CONNECT_TIMEOUT_MS,
  LIVE_WINDOW_MS,
  RETRY_FIRST_MS,
  RETRY_LAST_MS,
  retryDelay,
  SILENCE_LIMIT_MS,
  STEADY_MS,
} from "./client-connection.js";
export { fetchHistory, fetchPools, MAX_HISTORY_AGENTS, Refusal } from "./client-http.js";

/**
 * Losses kept, and apart from them plain goodbyes, as many as the server keeps: the oldest go first.
 * Apart, so that agents that come and go all day do not push out what was lost.
 */
export const MAX_DEPARTED = 50;
/** The shortest period of batches that the server allows. */
export const MIN_BATCH_MS = 50;
/** The longest. */
export const MAX_BATCH_MS = 5_000;

/** Agents kept that were live before a restart, as many as a pool holds by default: the oldest go first. */
const MAX_UNHEARD = 10_000;

/**
 * One pool, live. Events: `change` (`detail.kind` is `snapshot`, with `restarted`; `update` or
 * `departed`, with `agentId`; or `batch`, with `agentIds` and `departedIds`) and `connection` (`detail`
 * is `connection`).
 */
export class PoolFeed extends Feed {
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
  /** How many departed since the server started. */
  departures = { lost: 0, goodbyes: 0 };
  /**
   * What was known of agents before the server restarted, by id, until they are heard again. A
   * server starts empty: without this a restart would hide who did not survive it.
   * @type {Map<string, import("./metrics-client.d.ts").Unheard>}
   */
  unheard = new Map();

  #poolId;
  #snapshotSeq = -1;
  #seqs = new Map();

  /**
   * With `batchMs` the server sends what changed at most once in that time, instead of each change as
   * it happens. The rest is as for every `Feed`.
   */
  constructor({ poolId, batchMs, ...options }) {
    const isAllowed = Number.isInteger(batchMs) && batchMs >= MIN_BATCH_MS && batchMs <= MAX_BATCH_MS;
    if (batchMs !== undefined && !isAllowed) throw new RangeError(`batchMs is an integer, ${MIN_BATCH_MS} to ${MAX_BATCH_MS}`);
    const path = `agent-pools/${encodeURIComponent(poolId)}/metrics`;
    super(options, {
      socketPath: `/ws/${path}${batchMs === undefined ? "" : `?batch_ms=${batchMs}`}`,
      httpPath: `/api/v1/${path}`,
      isOurs: (message) => message.pool_id === poolId,
      isWhole: (message) => message.type === "initial_metrics" && Array.isArray(message.metrics),
      take: (message, whole, restarted) => (whole ? this.#takeSnapshot(message, restarted) : this.#takeNews(message)),
    });
    this.#poolId = poolId;
  }

  get poolId() {
    return this.#poolId;
  }

  /** Forgets the agents that were not heard since a restart. */
  dismissUnheard() {
    this.unheard = new Map();
    this.dispatchEvent(new CustomEvent("change", { detail: { kind: "snapshot", restarted: false } }));
  }

  /** A snapshot is all that the server knows: it replaces agents and departures alike. */
  #takeSnapshot(message, restarted) {
    if (restarted) this.unheard = this.#unheardSince(message.server_time);
    this.#snapshotSeq = message.seq ?? -1;
    this.#seqs.clear();
    this.agents = new Map(message.metrics.map(readAgent).filter(isRecord).map((agent) => [agent.agent_id, agent]));
    this.departed = new Map();
    this.departures = { lost: 0, goodbyes: 0 };
    for (const departure of oldestFirst(readDepartures(message.departed).reverse())) {
      if (!this.agents.has(departure.agent_id)) this.#keepDeparture(departure);
    }
    this.departures = readTotals(message.departures) ?? this.departures;
    for (const agentId of this.unheard.keys()) {
      if (this.agents.has(agentId) || this.departed.has(agentId)) this.unheard.delete(agentId);
    }
    return { kind: "snapshot", restarted };
  }

  /** All that was known until the restart at `since`, the latest last. */
  #unheardSince(since) {
    const known = [...this.departed.values(), ...this.agents.values()];
    const entries = [...this.unheard.values(), ...known.map((last) => ({ last, since }))];
    const wasLive = ({ last }) => last.last_update_time !== undefined;
    const latest = (most, belongs) => entries.filter(belongs).slice(-most);
    const goodbyes = latest(MAX_DEPARTED, (entry) => !wasLive(entry) && !isLoss(entry.last));
    const losses = latest(MAX_DEPARTED, (entry) => !wasLive(entry) && isLoss(entry.last));
    const live = latest(MAX_UNHEARD, wasLive);
    return new Map([...goodbyes, ...losses, ...live].map((entry) => [entry.last.agent_id, entry]));
  }

  #takeNews(message) {
    switch (message.type) {
      case "metrics_update":
        return this.#takeUpdate(message);
      case "agent_offline":
        return this.#takeOffline(message);
      case "metrics_batch":
        return this.#takeBatch(message);
      default:
        return null;
    }
  }

  #takeUpdate({ metrics, seq }) {
    const agent = readAgent(metrics);
    if (agent === null || !this.#isNews(agent.agent_id, seq)) return null;
    this.#keepAgent(agent);
    return { kind: "update", agentId: agent.agent_id };
  }

  #takeOffline({ metrics, seq, reason, server_time }) {
    if (!isRecord(metrics) || !isId(metrics.agent_id)) return null;
    const agentId = metrics.agent_id;
    if (!this.#isNews(agentId, seq)) return null;
    const last = this.agents.get(agentId) ?? this.departed.get(agentId) ?? this.unheard.get(agentId)?.last;
    this.#keepDeparture({
      agent_id: agentId,
      agent_name: last?.agent_name ?? agentId,
      reason: readReason(reason),
      at: server_time,
      running_tasks: last?.running_tasks ?? [],
    });
    return { kind: "departed", agentId };
  }

  /** Departures come before updates: an agent may depart and return within one batch. */
  #takeBatch({ metrics, offline, seq }) {
    const departedIds = new Set();
    for (const departure of oldestFirst(readDepartures(offline))) {
      const agentId = departure.agent_id;
      if (!departedIds.has(agentId) && !this.#isNews(agentId, seq)) continue;
      departedIds.add(agentId);
      this.#keepDeparture(departure);
    }
    const agentIds = [];
    for (const value of Array.isArray(metrics) ? metrics : []) {
      const agent = readAgent(value);
      // Its return bears the same number as its departure.
      if (agent === null || !(departedIds.delete(agent.agent_id) || this.#isNews(agent.agent_id, seq))) continue;
      this.#keepAgent(agent);
      agentIds.push(agent.agent_id);
    }
    if (agentIds.length === 0 && departedIds.size === 0) return null;
    return { kind: "batch", agentIds, departedIds: [...departedIds] };
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

  #keepAgent(agent) {
    this.agents.set(agent.agent_id, agent);
    this.departed.delete(agent.agent_id);
    this.unheard.delete(agent.agent_id);
  }

  #keepDeparture(departure) {
    const { agent_id: agentId } = departure;
    this.agents.delete(agentId);
    this.unheard.delete(agentId);
    this.departed.delete(agentId);
    this.departed.set(agentId, departure);
    const lost = isLoss(departure);
    const total = lost ? "lost" : "goodbyes";
    this.departures = { ...this.departures, [total]: this.departures[total] + 1 };
    const alike = [...this.departed.values()].filter((other) => isLoss(other) === lost);
    for (const { agent_id: oldest } of alike.slice(0, -MAX_DEPARTED)) {
      this.departed.delete(oldest);
      this.#seqs.delete(oldest);
    }
  }
}

/**
 * All pools that the viewer sees, in figures, live over one connection. Events: `change`
 * (`detail.kind` is `snapshot`, with `restarted`, or `pools`, with `poolIds`) and `connection`
 * (`detail` is `connection`).
 */
export class OverviewFeed extends Feed {
  /**
   * By id, in the server's order.
   * @type {Map<string, import("./metrics-client.d.ts").Pool>}
   */
  pools = new Map();

  constructor(options = {}) {
    super(options, {
      socketPath: "/ws/agent-pools",
      httpPath: "/api/v1/agent-pools",
      isOurs: () => true,
      // The first message of a connection has all pools, each further one those that changed.
      isWhole: (message, joined) => !joined && message.type === "pool_summaries" && Array.isArray(message.pools),
      take: (message, whole, restarted) => this.#take(message, whole, restarted),
    });
  }

  #take({ type, pools }, whole, restarted) {
    if (type !== "pool_summaries" || !Array.isArray(pools)) return null;
    const changed = pools.map(readPool).filter(isRecord);
    if (whole) this.pools = new Map();
    for (const pool of changed) this.pools.set(pool.pool_id, pool);
    if (whole) return { kind: "snapshot", restarted };
    return changed.length === 0 ? null : { kind: "pools", poolIds: changed.map(({ pool_id }) => pool_id) };
  }
}

/** Agents that were silent, or that left tasks behind: someone may want to know. */
function isLoss({ reason, running_tasks }) {
  return reason === "timeout" || running_tasks.length > 0;
}

/** The departures in `list` that can be read, in its order. */
function readDepartures(list) {
  return Array.isArray(list) ? list.map(readDeparture).filter(isRecord) : [];
}

/** Of one millisecond they stay as they are: a snapshot begins with the newest, a batch with the oldest. */
function oldestFirst(departures) {
  return departures.sort((a, b) => parseTime(a.at) - parseTime(b.at));
}
