// Which losses someone has marked as seen, kept in the browser for all of its tabs. Pure but for the
// storage that it is given; a browser that keeps nothing forgets them with the page.

import { ageMs, LOSS_MS } from "./health.js";

/** The key in the storage; its value is an array of `MAX_SEEN` strings at most. */
export const SEEN_KEY = "agent-metrics-seen";
/**
 * Marks kept in all, the oldest go first: ten pools of 50 losses, as many as a server remembers of
 * each. A loss is calm after an hour by itself, so that more are hardly ever needed.
 */
export const MAX_SEEN = 500;
/**
 * A loss that is told at once has the time of the message, up to so much after the time that the
 * server's list says.
 */
const SLACK_MS = 1_000;

/** The browser's localStorage, or null where it refuses it. */
export function browserStorage() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}

/** When the losses happened that were marked, by pool. */
export function readMarks(storage) {
  const marks = new Map();
  for (const mark of keptIn(storage)) {
    const [at, poolId] = mark.split(" ");
    marks.set(poolId, [...(marks.get(poolId) ?? []), at]);
  }
  return marks;
}

/** The marks that are kept; what is not ours is left out. */
function keptIn(storage) {
  try {
    const kept = JSON.parse(storage?.getItem(SEEN_KEY) ?? "[]");
    return Array.isArray(kept) ? kept.slice(-MAX_SEEN).filter((mark) => typeof mark === "string") : [];
  } catch {
    // Closed, or not ours.
    return [];
  }
}

/**
 * The losses of a pool that were marked: by agent, with the time of the last one, which is the
 * server's. So marks outlive a restart of the server, and a later loss of the same agent is news.
 */
export class Seen {
  #poolId;
  #storage;
  /** Times by pool and agent. */
  #marks = new Map();

  /** `storage` is the browser's localStorage, or null where there is none. */
  constructor(poolId, storage) {
    this.#poolId = poolId;
    this.#storage = storage;
    this.read();
  }

  /** Whether `loss`, a departure of the feed, was marked. */
  has = ({ agent_id: agentId, at }) => {
    const mark = this.#marks.get(`${this.#poolId} ${agentId}`);
    const later = mark === undefined ? null : ageMs(mark, Date.parse(at));
    return later !== null && later <= SLACK_MS;
  };

  /** Marks `losses`, as of `now` by the server's clock; marks too old to matter go. */
  add(losses, now) {
    this.read();
    for (const { agent_id: agentId, at } of losses) this.#put(`${this.#poolId} ${agentId}`, at);
    const needed = [...this.#marks].filter(([, at]) => (ageMs(at, now) ?? Infinity) <= LOSS_MS);
    this.#marks = new Map(needed.slice(-MAX_SEEN));
    try {
      this.#storage?.setItem(SEEN_KEY, JSON.stringify([...this.#marks].map(([key, at]) => `${at} ${key}`)));
    } catch {
      // Full or closed: the marks hold for as long as the page is open.
    }
  }

  /** Takes over what another tab has marked. No id and no time contains a space. */
  read() {
    for (const mark of keptIn(this.#storage)) {
      const [at, poolId, agentId] = mark.split(" ");
      this.#put(`${poolId} ${agentId}`, at);
    }
  }

  /** The later of two marks of an agent counts. */
  #put(key, at) {
    const before = this.#marks.get(key);
    if (before !== undefined && Date.parse(before) >= Date.parse(at)) return;
    this.#marks.delete(key);
    this.#marks.set(key, at);
  }
}
