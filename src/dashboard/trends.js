// The histories of the agents in sight: asked of the server once each, a little after the scrolling
// stopped, and kept up by the heartbeats from there on. Draws nothing.

import { History, HISTORY_MS } from "./history.js";
import { fetchHistory, MAX_HISTORY_AGENTS, Refusal } from "./metrics-client.js";

/** Whoever scrolls past asks for nothing. */
const REST_MS = 150;
/** After a request that failed, the next comes so much later. */
const RETRY_MS = 10_000;
/** The ids of one request together: a server takes a head of 8 KiB, the rest of which has its room. */
const MAX_ID_CHARACTERS = 4_000;
/** A chart spans at least this much. */
const SHORTEST_MS = 30_000;

/** The histories of entries (agent-entry.js) of one pool. */
export class Trends {
  #poolId;
  #filled;
  #fetch;
  /** Entries in sight that were not asked for. */
  #wanted = [];
  #timer = null;
  #isAsking = false;
  /** A server that keeps no history is not asked again. */
  #isOff = false;
  #since = Infinity;

  /** `filled` is called with the entries that got older values; `fetch` is for tests. */
  constructor(poolId, filled, fetch = fetchHistory) {
    this.#poolId = poolId;
    this.#filled = filled;
    this.#fetch = fetch;
  }

  /** How far back there is something to show at `now`: what all charts span, so that they can be compared. */
  windowMs(now) {
    return Math.min(HISTORY_MS, Math.max(SHORTEST_MS, now - this.#since));
  }

  /** Sees to the histories of `entries`, those in sight. */
  want(entries) {
    this.#wanted = [];
    for (const entry of entries) {
      if (entry.history === null) {
        entry.history = new History();
        entry.remember(0);
        this.#note(entry);
      }
      if (!entry.history.isAsked) this.#wanted.push(entry);
    }
    if (this.#wanted.length > 0) this.#askIn(REST_MS);
  }

  #note({ history }) {
    this.#since = Math.min(this.#since, history.since);
  }

  #askIn(delay) {
    if (this.#isOff || this.#isAsking) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), delay);
  }

  async #ask() {
    const entries = this.#wanted.splice(0, countThatFit(this.#wanted));
    for (const { history } of entries) history.isAsked = true;
    this.#isAsking = true;
    try {
      const { end, stepMs, agents } = await this.#fetch(this.#poolId, { agents: entries.map(({ agentId }) => agentId) });
      for (const entry of entries) {
        const series = agents.get(entry.agentId);
        if (series === undefined) continue;
        entry.history.fill({ end, stepMs, ...series });
        this.#note(entry);
      }
      this.#filled(entries);
    } catch (error) {
      if (error instanceof Refusal && error.status === 404) this.#isOff = true;
      for (const { history } of entries) history.isAsked = false;
      // Those that were wanted anew meanwhile are there already.
      this.#wanted.push(...entries.filter((entry) => !this.#wanted.includes(entry)));
      // Whoever scrolls meanwhile does not make it sooner.
      this.#timer = setTimeout(() => this.#goOn(), RETRY_MS);
      return;
    }
    this.#goOn();
  }

  #goOn() {
    this.#isAsking = false;
    if (this.#wanted.length > 0) this.#askIn(0);
  }
}

/** How many of `entries`, from the first, one request asks for. */
function countThatFit(entries) {
  let characters = 0;
  const end = entries.findIndex(({ agentId }) => (characters += agentId.length) > MAX_ID_CHARACTERS);
  return Math.min(end < 0 ? entries.length : end, MAX_HISTORY_AGENTS);
}
