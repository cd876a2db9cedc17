// What the client module asks over plain HTTP: the pools, a pool's history, and why the server refused.

import { isCount, isRecord, parseTime, readSeries } from "./client-checks.js";

/** How long a short answer may take. */
const SHORT_TIMEOUT_MS = 5_000;
/** How long a history may take: that of 10,000 agents has some 10 MB. */
const HISTORY_TIMEOUT_MS = 60_000;
/** The most agents that one question for histories names, as the server allows. */
export const MAX_HISTORY_AGENTS = 100;

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
  const { pools } = await askForJson("/api/v1/agent-pools", options, SHORT_TIMEOUT_MS);
  if (!Array.isArray(pools)) throw new TypeError("the answer holds no list of pools");
  return pools;
}

/**
 * The last 15 minutes of the pool's agents, or of `agents` (1 to `MAX_HISTORY_AGENTS` ids) only.
 * Throws as `fetchPools` does. An agent whose history is not of the contract is left out.
 * @param {string} poolId
 * @param {{agents?: Iterable<string>, base?: string, token?: string, fetch?: typeof fetch}} [options]
 */
export async function fetchHistory(poolId, { agents, ...options } = {}) {
  const path = `/api/v1/agent-pools/${encodeURIComponent(poolId)}/history${agents === undefined ? "" : queryOf([...agents])}`;
  const history = await askForJson(path, options, HISTORY_TIMEOUT_MS);
  const [end, stepMs] = [parseTime(history.end), history.step_ms];
  if (end === null || !isCount(stepMs) || stepMs === 0 || !isRecord(history.agents)) {
    throw new TypeError("the answer holds no history");
  }
  const series = new Map();
  for (const [agentId, value] of Object.entries(history.agents)) {
    const read = readSeries(value);
    if (read !== null) series.set(agentId, read);
  }
  return { end, stepMs, agents: series };
}

/** None would be a question for all agents. */
function queryOf(agentIds) {
  if (agentIds.length === 0 || agentIds.length > MAX_HISTORY_AGENTS) {
    throw new RangeError(`histories of 1 to ${MAX_HISTORY_AGENTS} agents at once, not ${agentIds.length}`);
  }
  return `?${new URLSearchParams(agentIds.map((id) => ["agent", id]))}`;
}

async function askForJson(path, { base, token, fetch }, timeoutMs) {
  const url = new URL(path, base ?? globalThis.location.origin);
  const response = await ask(fetch ?? globalThis.fetch, url, { token, timeoutMs });
  if (!response.ok) throw await refusalOf(response);
  const body = await response.json();
  return isRecord(body) ? body : {};
}

export function ask(fetch, url, { token, method = "GET", timeoutMs = SHORT_TIMEOUT_MS }) {
  return fetch(url, {
    method,
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    cache: "no-store",
    signal: AbortSignal.timeout(timeoutMs),
  });
}

export async function refusalOf(response) {
  let detail = `HTTP ${response.status}`;
  try {
    const said = (await response.json()).detail;
    if (typeof said === "string") detail = said;
  } catch {
    // No problem body: the status has to do.
  }
  return new Refusal(response.status, detail);
}
