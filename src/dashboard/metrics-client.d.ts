// Types of /metrics-client.js. To use them, keep this file beside your sources and tell TypeScript
// that the module's address means it: the README's "For your own page" shows how.

/** Live means that something arrived within this time. In milliseconds: 12,000. */
export const LIVE_WINDOW_MS: number;
/** A connection on which nothing arrived for this long is given up. In milliseconds: 45,000. */
export const SILENCE_LIMIT_MS: number;
/** A connection attempt that takes longer is given up. In milliseconds: 10,000. */
export const CONNECT_TIMEOUT_MS: number;
/** The shortest wait before a new attempt; waits double, up to `RETRY_LAST_MS`. In milliseconds: 500. */
export const RETRY_FIRST_MS: number;
/** The longest wait before a new attempt. In milliseconds: 30,000. */
export const RETRY_LAST_MS: number;
/** After a connection that lasted this long the waits start from the first. In milliseconds: 10,000. */
export const STEADY_MS: number;
/** Departures kept, as many as the server keeps: 50. The oldest go first. */
export const MAX_DEPARTED: number;

/** A moment: RFC 3339, UTC, milliseconds, by the server's clock. */
export type Timestamp = string;

/** A job that an agent runs. */
export interface Task {
  /** An unsigned integer of 64 bits: a string when it has 16 digits or more, else a number. */
  readonly task_id: number | string;
  readonly task_type: string;
  readonly workspace_id: string;
  /** As the agent sent it: should be RFC 3339, need not be. */
  readonly started_at: string;
}

/** A live agent, as of its last heartbeat. */
export interface Agent {
  /** Known by this within its pool. */
  readonly agent_id: string;
  /** To show; the id when the agent gave no name. */
  readonly agent_name: string;
  /** In percent, 0 to 100. */
  readonly cpu_usage: number;
  /** In percent, 0 to 100. */
  readonly memory_usage: number;
  /** At most 256. */
  readonly running_tasks: readonly Task[];
  /** When its last heartbeat reached the server. */
  readonly last_update_time: Timestamp;
  /** What the agent says of itself, such as `busy` or `idle`. */
  readonly status: string;
  /** The observed time between its heartbeats, in milliseconds; null until it is known. */
  readonly interval_ms: number | null;
}

/** An agent that is gone. */
export interface Departure {
  readonly agent_id: string;
  readonly agent_name: string;
  /** `goodbye`: it said so. `timeout`: nothing was heard of it for too long. */
  readonly reason: "goodbye" | "timeout";
  /** When it went. */
  readonly at: Timestamp;
  /** What it was running when last heard of. */
  readonly running_tasks: readonly Task[];
}

/** What was known of an agent before the server restarted; the new server has not heard it yet. */
export interface Unheard {
  /** The agent as it was last known, live or already departed. */
  readonly last: Agent | Departure;
  /** When the restart was seen. */
  readonly since: Timestamp;
}

/** Mean and highest of a pool's live agents, in percent. */
export interface MeanAndMax {
  readonly mean: number;
  readonly max: number;
}

/** A pool in figures, as in `GET /api/v1/agent-pools`. */
export interface Pool {
  readonly pool_id: string;
  /** To show; the id when the configuration gives no name. */
  readonly name: string;
  /** Live agents: how many, and how many of each status. */
  readonly agents: { readonly total: number; readonly by_status: Readonly<Record<string, number>> };
  /** Departures that the server remembers, 50 at most. */
  readonly departed: number;
  /** Null while the pool has no live agent. */
  readonly cpu: MeanAndMax | null;
  /** Null while the pool has no live agent. */
  readonly memory: MeanAndMax | null;
}

/**
 * How a feed stands. `retryAt` is in milliseconds of the feed's own clock: ask `retryInMs()`.
 * `reason` is for people, in English.
 */
export type Connection =
  /** Not started, or stopped. */
  | { readonly state: "stopped"; readonly reason: null; readonly status: null; readonly retryAt: null }
  /** An attempt is under way; `reason` is why the last one ended. */
  | { readonly state: "connecting"; readonly reason: string | null; readonly status: null; readonly retryAt: null }
  /** What is held is the pool's true state. */
  | { readonly state: "live"; readonly reason: null; readonly status: null; readonly retryAt: null }
  /** Connected, but nothing arrived for `LIVE_WINDOW_MS`: what is held may be old. */
  | { readonly state: "silent"; readonly reason: string; readonly status: null; readonly retryAt: null }
  /** The connection is lost, and a new attempt comes. */
  | { readonly state: "waiting"; readonly reason: string; readonly status: null; readonly retryAt: number }
  /** The server said no, with an HTTP `status`. Without `retryAt` (401) someone has to act. */
  | { readonly state: "refused"; readonly reason: string; readonly status: number; readonly retryAt: number | null };

/** What has changed. */
export type Change =
  /** Everything, the maps too. `restarted`: the server had started anew. */
  | { readonly kind: "snapshot"; readonly restarted: boolean }
  /** An agent came, or sent a heartbeat. */
  | { readonly kind: "update"; readonly agentId: string }
  /** An agent went: it is in `departed` now. */
  | { readonly kind: "departed"; readonly agentId: string };

/** The events of a `PoolFeed`. */
export interface PoolFeedEventMap {
  change: CustomEvent<Change>;
  connection: CustomEvent<Connection>;
}

/** The server said no. */
export class Refusal extends Error {
  constructor(status: number, detail: string);
  /** HTTP status. */
  readonly status: number;
}

/** The clock that a feed goes by. For tests. */
export interface Clock {
  /** Milliseconds that only ever rise. */
  now(): number;
  /** Milliseconds since 1970, which may jump. */
  wall(): number;
  setTimeout(action: () => void, delayMs: number): unknown;
  clearTimeout(timer: any): void;
}

/** What a feed uses of a WebSocket: the browser's, or that of the npm package `ws`. */
export interface WebSocketLike {
  addEventListener(type: any, listener: (event: any) => void): void;
  close(): void;
}

export interface PoolFeedOptions {
  /** The pool to watch. */
  poolId: string;
  /** The server's origin, such as `https://metrics.example.org`. Default: that of the page. */
  base?: string | undefined;
  /** A viewer's token, where the server wants one and no cookie carries it. */
  token?: string | undefined;
  /** Where there is none built in (Node before 22), or for tests. */
  WebSocket?: (new (url: string) => WebSocketLike) | undefined;
  /** For tests. */
  fetch?: typeof globalThis.fetch | undefined;
  /** For tests. */
  clock?: Clock | undefined;
  /** Chance, from 0 to under 1. For tests. */
  random?: (() => number) | undefined;
}

export interface FetchPoolsOptions {
  /** The server's origin. Default: that of the page. */
  base?: string | undefined;
  /** A viewer's token, where the server wants one and no cookie carries it. */
  token?: string | undefined;
  /** For tests. */
  fetch?: typeof globalThis.fetch | undefined;
}

/**
 * The pools that this viewer may see. Rejects with a `Refusal` when the server says no, and with
 * what `fetch` throws when there is no server.
 */
export function fetchPools(options?: FetchPoolsOptions): Promise<Pool[]>;

/**
 * The wait before attempt `attempt` (from 0), in milliseconds: between `RETRY_FIRST_MS` and twice
 * that at first, then doubling up to `RETRY_LAST_MS`; half of each wait is chance.
 */
export function retryDelay(attempt: number, random?: () => number): number;

/** One pool, live: connects, reconnects, and holds the pool's true state. */
export class PoolFeed extends EventTarget {
  constructor(options: PoolFeedOptions);

  readonly poolId: string;
  /** Live agents by id. An update puts a new object in place of the old one. */
  readonly agents: ReadonlyMap<string, Agent>;
  /**
   * Departed agents by id, the oldest departure first; never one that is in `agents`. When they
   * get too many, the oldest goes without an event of its own.
   */
  readonly departed: ReadonlyMap<string, Departure>;
  /**
   * Agents that were known before the server restarted, by id, until they are heard again or
   * `dismissUnheard` is called; never one that is in `agents` or `departed`. At most the latest
   * 10,000 that were live and the latest 50 that had departed.
   */
  readonly unheard: ReadonlyMap<string, Unheard>;
  /** Changes with each start of the server; null before the first snapshot. */
  readonly epoch: string | null;
  readonly connection: Connection;

  /** Connects, and stays connected until `stop`. */
  start(): void;
  /** Disconnects for good; the state stays as it was last known. */
  stop(): void;
  /** A new attempt now, whatever the wait. Does nothing when stopped. */
  reconnect(): void;
  /**
   * The tab or the network came back: what is waited for happens now. In a page the feed listens for
   * that itself.
   */
  wake(what?: { networkChanged?: boolean }): void;
  /** Empties `unheard`. A `change` of kind `snapshot` follows. */
  dismissUnheard(): void;
  /** Milliseconds until the next attempt; 0 when none is due. */
  retryInMs(): number;
  /** The server's clock, in milliseconds since 1970, as far as known; null before a message. */
  serverNow(): number | null;
  /**
   * Up to when the state is true, in milliseconds since 1970 by the server's clock: now while live,
   * else the moment of the last message. Measure ages against this.
   */
  asOf(): number | null;
  /**
   * The moment of the last message, likewise. Measure against this how late an agent is: a server
   * that is silent has not missed a heartbeat.
   */
  heardAt(): number | null;

  addEventListener<K extends keyof PoolFeedEventMap>(
    type: K,
    listener: ((this: PoolFeed, event: PoolFeedEventMap[K]) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof PoolFeedEventMap>(
    type: K,
    listener: ((this: PoolFeed, event: PoolFeedEventMap[K]) => void) | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}
