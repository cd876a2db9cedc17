// A front end that uses all of /metrics-client.js, for the compiler alone: types.test.mjs has it
// checked. Where it says `@ts-expect-error`, what follows must not compile.

import {
  CONNECT_TIMEOUT_MS,
  fetchHistory,
  fetchPools,
  LIVE_WINDOW_MS,
  MAX_BATCH_MS,
  MAX_DEPARTED,
  MAX_HISTORY_AGENTS,
  MIN_BATCH_MS,
  OverviewFeed,
  PoolFeed,
  Refusal,
  RETRY_FIRST_MS,
  RETRY_LAST_MS,
  retryDelay,
  SILENCE_LIMIT_MS,
  STEADY_MS,
} from "https://metrics.example.org/metrics-client.js";
import type {
  Agent,
  Change,
  Clock,
  Connection,
  Departure,
  Departures,
  FeedOptions,
  FetchHistoryOptions,
  FetchPoolsOptions,
  FinishedTask,
  History,
  Kind,
  MeanAndMax,
  OverviewChange,
  OverviewFeedEventMap,
  Pool,
  PoolFeedEventMap,
  PoolFeedOptions,
  Series,
  Task,
  Timestamp,
  Unheard,
  WebSocketLike,
} from "https://metrics.example.org/metrics-client.js";

const milliseconds: number[] = [CONNECT_TIMEOUT_MS, LIVE_WINDOW_MS, RETRY_FIRST_MS, RETRY_LAST_MS, SILENCE_LIMIT_MS, STEADY_MS, MIN_BATCH_MS, MAX_BATCH_MS];
const most: number = MAX_DEPARTED + MAX_HISTORY_AGENTS;
// @ts-expect-error: a constant
MAX_DEPARTED = 51;

const feed = new PoolFeed({ poolId: "pool-a", base: "https://metrics.example.org", token: "t" });
// @ts-expect-error: a feed is of a pool
new PoolFeed({ base: "https://metrics.example.org" });
show(new PoolFeed({ poolId: "pool-a", batchMs: 250 }));
// @ts-expect-error: a number of milliseconds
new PoolFeed({ poolId: "pool-a", batchMs: "250" });
// @ts-expect-error: an option that is none
new PoolFeed({ poolId: "pool-a", pool: "pool-b" });

feed.addEventListener("change", (event) => {
  const change: Change = event.detail;
  switch (change.kind) {
    case "snapshot":
      show(change.restarted);
      // @ts-expect-error: everything has changed, not one agent
      show(change.agentId);
      break;
    case "update":
      show(feed.agents.get(change.agentId)?.cpu_usage);
      break;
    case "departed":
      show(feed.departed.get(change.agentId)?.reason === "timeout");
      break;
    case "batch": {
      const ids: readonly string[] = [...change.agentIds, ...change.departedIds];
      // @ts-expect-error: several may have changed
      show(ids, change.agentId);
      break;
    }
    default: {
      const none: never = change;
      show(none);
    }
  }
});
feed.addEventListener(
  "connection",
  function ({ detail }) {
    const itself: PoolFeed = this;
    show(itself, label(detail));
  },
  { once: true },
);
// @ts-expect-error: a connection has no kind
feed.addEventListener("connection", ({ detail }) => show(detail.kind));
feed.addEventListener("other", (event: Event) => show(event.type));
const typed = (event: PoolFeedEventMap["connection"]) => show(event.detail.state);
feed.addEventListener("connection", typed);
feed.removeEventListener("connection", typed);
feed.removeEventListener("other", null);

function label(connection: Connection): string {
  switch (connection.state) {
    case "refused": {
      const [status, until]: [number, number | null] = [connection.status, connection.retryAt];
      return `${status} ${connection.reason.trim()} ${until}`;
    }
    case "waiting": {
      const until: number = connection.retryAt;
      return `${connection.reason.trim()}, again in ${feed.retryInMs()} ms ${until}`;
    }
    case "silent":
      return connection.reason.trim();
    case "connecting":
      // @ts-expect-error: there is none at first
      return connection.reason.trim();
    case "live":
    case "stopped": {
      const nothing: null = connection.reason ?? connection.status ?? connection.retryAt;
      return String(nothing);
    }
    default: {
      const none: never = connection;
      return none;
    }
  }
}
// @ts-expect-error: no such state
if (feed.connection.state === "open") show();

function describe(agent: Agent): [string, number, Timestamp] {
  const interval: number | null = agent.interval_ms;
  // @ts-expect-error: null until it is known
  show(agent.interval_ms + 1);
  // @ts-expect-error: what is held is only to be read
  agent.cpu_usage = 0;
  for (const task of agent.running_tasks) show(job(task), interval);
  const optional: (number | string | undefined)[] = [agent.capacity, agent.disk_usage, agent.version, agent.note, agent.labels?.["os"]];
  // @ts-expect-error: not every agent says it
  show(agent.capacity - agent.running_tasks.length);
  show(optional, agent.finished_tasks?.map(ended), agent.recent_tasks?.map(ended));
  return [`${agent.agent_id} ${agent.agent_name} ${agent.status}`, agent.cpu_usage + agent.memory_usage, agent.last_update_time];
}

function job({ task_id, task_type, workspace_id, started_at }: Task): string {
  // @ts-expect-error: one of 16 digits and more is a string
  const id: number = task_id;
  return [id, task_type, workspace_id, started_at].join();
}

function ended(task: FinishedTask): string {
  const { finished_at, exit_code }: { finished_at: Timestamp; exit_code: number | null } = task;
  // @ts-expect-error: null where it is not known
  show(exit_code + 1);
  const link: (string | undefined)[] = [task.title, task.url];
  return [job(task), finished_at, exit_code, ...link].join();
}

function gone(departure: Departure): string {
  const why: "goodbye" | "timeout" = departure.reason;
  // @ts-expect-error: the departed have no load
  show(departure.cpu_usage);
  return [departure.agent_id, departure.agent_name, why, departure.at, ...departure.running_tasks.map(job)].join();
}

show([...feed.agents.values()].map(describe), [...feed.departed.values()].map(gone));
function missing({ last, since }: Unheard): string {
  // @ts-expect-error: who had departed has none
  show(last.last_update_time);
  return [last.agent_name, since, "at" in last ? gone(last) : describe(last)].join();
}
show([...feed.unheard.values()].map(missing));
feed.dismissUnheard();
const totals: Departures = feed.departures;
// @ts-expect-error: the feed counts
feed.departures.lost = 0;
show(totals.lost + totals.goodbyes);
// @ts-expect-error: the feed keeps the state
feed.agents.clear();
// @ts-expect-error: the feed keeps the state
feed.connection = { state: "live", reason: null, status: null, retryAt: null };
// @ts-expect-error: the pool of a feed stays
feed.poolId = "pool-b";

feed.start();
feed.wake();
feed.wake({ networkChanged: true });
feed.reconnect();
const moments: (number | null)[] = [feed.serverNow(), feed.asOf(), feed.heardAt(), feed.retryInMs()];
const epoch: string | null = feed.epoch;
feed.stop();

function load(of: MeanAndMax | null): string {
  // @ts-expect-error: an empty pool has none
  show(of.mean);
  return of === null ? "" : `${of.mean} ${of.max}`;
}

async function pools(options?: FetchPoolsOptions): Promise<string[]> {
  try {
    const list: Pool[] = await fetchPools(options);
    return list.map(({ pool_id, name, agents, departed, cpu, memory }) => {
      const busy: number | undefined = agents.by_status["busy"];
      return [pool_id, name, agents.total, busy, departed, load(cpu), load(memory)].join();
    });
  } catch (error) {
    if (error instanceof Refusal) show(error.status + 1, error.message, error.name);
    return [];
  }
}
show(pools(), pools({ base: "https://metrics.example.org", token: "t", fetch }));

const overview = new OverviewFeed();
overview.addEventListener("change", function ({ detail }) {
  const itself: OverviewFeed = this;
  const change: OverviewChange = detail;
  if (change.kind === "snapshot") show(itself, change.restarted);
  else show(change.poolIds.map((id) => overview.pools.get(id)?.cells?.length));
});
const overviewState = (event: OverviewFeedEventMap["connection"]) => show(label(event.detail));
overview.addEventListener("connection", overviewState);
overview.start();
for (const pool of overview.pools.values()) show(trouble(pool));
// @ts-expect-error: it is of all pools
show(overview.poolId);
// @ts-expect-error: the feed keeps the state
overview.pools.clear();

function trouble({ states, late, attention, lost, tasks_lost, last_loss_at, free, app_keys }: Pool): string {
  const kinds: Kind[] = ["busy", "idle", "late", "error", "paused", "other"];
  const since: Timestamp | null = last_loss_at;
  // @ts-expect-error: no such kind
  show(states.offline);
  return [kinds.map((kind) => states[kind]), late + attention + lost + tasks_lost + free, since, app_keys?.[0]].join();
}

async function history(options?: FetchHistoryOptions): Promise<number[]> {
  const { end, stepMs, agents }: History = await fetchHistory("pool-a", options);
  const series: Series | undefined = agents.get("agent-1");
  // @ts-expect-error: null where it is not known
  show(series?.memory.reduce((sum, step) => sum + step, 0));
  return (series?.cpu ?? []).map((_, step, { length }) => end - (length - step) * stepMs);
}
show(history(), history({ agents: ["agent-1"], base: "https://metrics.example.org", token: "t", fetch }));
show(retryDelay(0), retryDelay(1, Math.random), new Refusal(401, "why"));
// @ts-expect-error: the status comes first
new Refusal("why", 401);

/** What tests put in. */
class Socket extends EventTarget implements WebSocketLike {
  constructor(readonly url: string) {
    super();
  }
  close(): void {}
}
const clock: Clock = { now: () => 0, wall: () => 0, setTimeout: () => 1, clearTimeout: () => {} };
const shared: FeedOptions = { clock, random: () => 0.5, WebSocket: Socket, fetch };
const options: PoolFeedOptions = { poolId: "p", ...shared };
show(new OverviewFeed(shared), new PoolFeed(options), new PoolFeed({ poolId: "p", WebSocket }), milliseconds, most, moments, epoch);

function show(...what: unknown[]): void {
  void what;
}
