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
 * The losses of a pool that were marked. They are known by agent and time, so that marks outlive a
 * restart of the server, and another loss of the same agent is none of them.
 */
export class Seen {
  #poolId;
  #storage;
  #marks = new Set();

  /** `storage` is the browser's localStorage, or null where there is none. */
  constructor(poolId, storage) {
    this.#poolId = poolId;
    this.#storage = storage;
    this.read();
  }

  /** Whether `loss`, a departure of the feed, was marked. */
  has = (loss) => this.#marks.has(this.#markOf(loss));

  /** Marks `losses`, as of `now` by the server's clock; marks too old to matter go. */
  add(losses, now) {
    this.read();
    for (const loss of losses) this.#marks.add(this.#markOf(loss));
    const isNeeded = (mark) => (ageMs(mark.slice(0, mark.indexOf(" ")), now) ?? Infinity) <= LOSS_MS;
    this.#marks = new Set([...this.#marks].filter(isNeeded).slice(-MAX_SEEN));
    try {
      this.#storage?.setItem(SEEN_KEY, JSON.stringify([...this.#marks]));
    } catch {
      // Full or closed: the marks hold for as long as the page is open.
    }
  }

  /** Takes over what another tab has marked. */
  read() {
    for (const mark of keptIn(this.#storage)) this.#marks.add(mark);
  }

  /** Neither ids nor times contain a space. */
  #markOf({ agent_id: agentId, at }) {
    return `${at} ${this.#poolId} ${agentId}`;
  }
}
