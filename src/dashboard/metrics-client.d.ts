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
/** Losses kept, and as many plain goodbyes apart from them: 50. The oldest go first. */
export const MAX_DEPARTED: number;
/** The shortest period of batches. In milliseconds: 50. */
export const MIN_BATCH_MS: number;
/** The longest period of batches. In milliseconds: 5,000. */
export const MAX_BATCH_MS: number;
/** The most agents that `fetchHistory` can be asked for by id: 100. */
export const MAX_HISTORY_AGENTS: number;

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
  /** What the job is called, for people. */
  readonly title?: string;
  /** Where to look at it: http or https. */
  readonly url?: string;
}

/** A job that ended. */
export interface FinishedTask extends Task {
  /** When it ended. */
  readonly finished_at: Timestamp;
  /** Null where it is not known. */
  readonly exit_code: number | null;
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
  /** How many tasks it can run at once. */
  readonly capacity?: number;
  /** Of the fullest file system that its tasks use, in percent, 0 to 100. */
  readonly disk_usage?: number;
  /** At most 16. */
  readonly labels?: Readonly<Record<string, string>>;
  /** What software it runs. */
  readonly version?: string;
  /** A word to people, such as why it takes no more work. */
  readonly note?: string;
  /** In an update: what ended since the one before. */
  readonly finished_tasks?: readonly FinishedTask[];
  /** In a snapshot: the newest that ended. */
  readonly recent_tasks?: readonly FinishedTask[];
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

/**
 * How many agents departed since the server started: `lost` by a timeout, or with running tasks;
 * `goodbyes` without. The server's own count whenever a snapshot comes.
 */
export interface Departures {
  readonly lost: number;
  readonly goodbyes: number;
}

/** What was known of an agent before the server restarted; the new server has not heard it yet. */
export interface Unheard {
  /** The agent as it was last known, live or already departed. */
  readonly last: Agent | Departure;
  /** When the restart was seen. */
  readonly since: Timestamp;
}

/** Mean and highest of a pool's live agents that are not late, in percent. */
export interface MeanAndMax {
  readonly mean: number;
  readonly max: number;
}

/**
 * A live agent's kind: `late` by its own rhythm, whatever its status says, else by its status. `error`
 * is also `failed` and `unhealthy`, `paused` also `draining` and `maintenance`; `other` is any that is
 * not known.
 */
export type Kind = "busy" | "idle" | "late" | "error" | "paused" | "other";

/** A pool in figures, as in `GET /api/v1/agent-pools`. */
export interface Pool {
  readonly pool_id: string;
  /** To show; the id when the configuration gives no name. */
  readonly name: string;
  /** Live agents: how many, and how many of each status. */
  readonly agents: { readonly total: number; readonly by_status: Readonly<Record<string, number>> };
  /** Departures that the server remembers, 100 at most. */
  readonly departed: number;
  /** Null while the pool has no live agent that is not late. */
  readonly cpu: MeanAndMax | null;
  /** Null while the pool has no live agent that is not late. */
  readonly memory: MeanAndMax | null;
  /** Live agents by kind, each counted once. */
  readonly states: Readonly<Record<Kind, number>>;
  /** Live agents that are late. */
  readonly late: number;
  /** Live agents that are late, in error, or with memory at 90 % or more. */
  readonly attention: number;
  /** Agents that were lost within the last hour: by a timeout, or with running tasks. */
  readonly lost: number;
  /** The tasks that these held. */
  readonly tasks_lost: number;
  /** Null when nothing was lost. */
  readonly last_loss_at: Timestamp | null;
  /** Agents that are idle and not late. */
  readonly free: number;
  /**
   * In an `OverviewFeed`, for pools of up to 400 agents: two characters an agent, ordered by name, then
   * id. The first letter of its kind, and the tens digit of its CPU or memory usage, whichever is
   * higher (9 for 100 %).
   */
  readonly cells?: string;
  /** The names of its keys, for viewers of all pools. */
  readonly app_keys?: readonly string[];
}

/** The load of one agent, one entry a step, the oldest first; null where it is not known. */
export interface Series {
  /** In percent, 0 to 100. */
  readonly cpu: readonly (number | null)[];
  /** In percent, 0 to 100. */
  readonly memory: readonly (number | null)[];
}

/** The last minutes of a pool. */
export interface History {
  /**
   * The end of the last step, in milliseconds since 1970 by the server's clock. This step is not over:
   * `end` may lie ahead of now by up to `stepMs`.
   */
  readonly end: number;
  /** The length of a step, in milliseconds. */
  readonly stepMs: number;
  /** By agent id. */
  readonly agents: ReadonlyMap<string, Series>;
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
  | { readonly kind: "departed"; readonly agentId: string }
  /**
   * All that came in one message, with `batchMs`: agents that came or sent heartbeats, and agents that
   * went and are not back. No id is in both.
   */
  | { readonly kind: "batch"; readonly agentIds: readonly string[]; readonly departedIds: readonly string[] };

/** The events of a `PoolFeed`. */
export interface PoolFeedEventMap {
  change: CustomEvent<Change>;
  connection: CustomEvent<Connection>;
}

/** What has changed in an overview. */
export type OverviewChange =
  /** Everything, the map too. `restarted`: the server had started anew. */
  | { readonly kind: "snapshot"; readonly restarted: boolean }
  /** The figures of some pools. */
  | { readonly kind: "pools"; readonly poolIds: readonly string[] };

/** The events of an `OverviewFeed`. */
export interface OverviewFeedEventMap {
  change: CustomEvent<OverviewChange>;
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

/** What every feed takes. */
export interface FeedOptions {
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

export interface PoolFeedOptions extends FeedOptions {
  /** The pool to watch. */
  poolId: string;
  /**
   * Changes in batches, at most one in so many milliseconds, from `MIN_BATCH_MS` to `MAX_BATCH_MS`: far
   * cheaper where there are many agents. Default: each change as it happens. The constructor throws a
   * `RangeError` for any other number.
   */
  batchMs?: number | undefined;
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

export interface FetchHistoryOptions extends FetchPoolsOptions {
  /**
   * Ids, from 1 to `MAX_HISTORY_AGENTS`, and within a head of 8 KiB: the server refuses a longer one
   * with 431. Default: all of the pool's agents.
   */
  agents?: Iterable<string> | undefined;
}

/**
 * The last 15 minutes of a pool's agents, in steps of 10 seconds. Rejects as `fetchPools` does, and
 * with a `RangeError` for too many agents, or for none.
 */
export function fetchHistory(poolId: string, options?: FetchHistoryOptions): Promise<History>;

/**
 * The wait before attempt `attempt` (from 0), in milliseconds: between `RETRY_FIRST_MS` and twice
 * that at first, then doubling up to `RETRY_LAST_MS`; half of each wait is chance.
 */
export function retryDelay(attempt: number, random?: () => number): number;

/** What all feeds have. */
declare abstract class Feed<EventMap> extends EventTarget {
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

  addEventListener<K extends keyof EventMap>(
    type: K,
    listener: ((this: this, event: EventMap[K]) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof EventMap>(
    type: K,
    listener: ((this: this, event: EventMap[K]) => void) | null,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** One pool, live: connects, reconnects, and holds the pool's true state. */
export class PoolFeed extends Feed<PoolFeedEventMap> {
  constructor(options: PoolFeedOptions);

  readonly poolId: string;
  /** Live agents by id. An update puts a new object in place of the old one. */
  readonly agents: ReadonlyMap<string, Agent>;
  /**
   * Departed agents by id, the oldest departure first; never one that is in `agents`. When they
   * get too many, the oldest goes without an event of its own.
   */
  readonly departed: ReadonlyMap<string, Departure>;
  /** How many departed, those that are no longer in `departed` too. */
  readonly departures: Departures;
  /**
   * Agents that were known before the server restarted, by id, until they are heard again or
   * `dismissUnheard` is called; never one that is in `agents` or `departed`. At most the latest
   * 10,000 that were live, the latest 50 that were lost and the latest 50 that said goodbye. Another of
   * several servers with the same agents is no restart.
   */
  readonly unheard: ReadonlyMap<string, Unheard>;

  /** Empties `unheard`. A `change` of kind `snapshot` follows. */
  dismissUnheard(): void;
}

/** All pools that the viewer sees, in figures, live over one connection. */
export class OverviewFeed extends Feed<OverviewFeedEventMap> {
  constructor(options?: FeedOptions);

  /** By id, in the server's order. News puts a new object in place of the old one. */
  readonly pools: ReadonlyMap<string, Pool>;
}

// What is not exported above is not: TypeScript exports all of a declaration file without this.
export {};
