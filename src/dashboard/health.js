// What the numbers mean: levels, lateness, and a pool in a few figures. Pure; no DOM, no clock.

import { MAX_DEPARTED } from "./metrics-client.js";

/** From here on a load is "warm" (yellow), in percent. */
export const WARM_PERCENT = 70;
/** From here on a load is "hot" (red), in percent. */
export const HOT_PERCENT = 90;
/** The rhythm assumed until an agent's own is known: the slowest that the project recommends. */
const ASSUMED_INTERVAL_MS = 60_000;
/**
 * The fastest rhythm that an agent is held to: heartbeats that come together, by hand or after a
 * pause of the network, are no promise of more like them.
 */
const FASTEST_INTERVAL_MS = 2_000;
/** An agent is late once this many of its own intervals, and the slack, passed without a word. */
const LATE_INTERVALS = 2.5;
/** For networks and schedulers: agents with a rhythm of a second are not late at once. */
const LATE_SLACK_MS = 2_000;

/**
 * A loss wants to be looked at for this long, unless it was marked as seen; an agent that was not heard
 * since a restart for as long after that.
 */
export const LOSS_MS = 3_600_000;

/** States that are named; further ones are one number. Agents may call their state anything. */
export const MAX_STATES = 20;
/** Names as people order them: `runner-9` comes before `runner-10`. */
const names = new Intl.Collator(undefined, { numeric: true });
/** Agents that a summary names among those that need attention. */
export const MAX_NAMED = 3;

/** Statuses that say something to the page, and what; any other one is kind `other`. */
const KINDS = {
  __proto__: null,
  error: "error",
  failed: "error",
  unhealthy: "error",
  draining: "paused",
  maintenance: "paused",
  paused: "paused",
  busy: "busy",
  idle: "idle",
};

/** All kinds of an agent's state, the worst first. */
export const SEVERITY = ["lost", "error", "late", "unheard", "paused", "other", "busy", "idle", "offline"];

/** The order of what a summary counts: `high` overlaps with the kinds. */
const CHIPS = SEVERITY.toSpliced(SEVERITY.indexOf("late") + 1, 0, "high");

/**
 * How much an agent wants to be looked at, by number, the most urgent first. Up to `HIGH` it needs
 * attention.
 */
export const TROUBLE = { LOST_WITH_TASKS: 0, LOST: 1, ERROR: 2, LATE: 3, HIGH: 4, NONE: 5, GONE: 6 };

/** Filters that are the page's own words; an agent that uses one as its status has another key. */
const PAGE_STATES = new Set(["lost", "late", "unheard", "offline", "high", "attention"]);
/** Stands before such a status. No status has a dot. */
const OWN = "own.";

/** `ok` under 70, `warm` from 70 to under 90, `hot` from 90. */
export function level(percent) {
  if (percent >= HOT_PERCENT) return "hot";
  return percent >= WARM_PERCENT ? "warm" : "ok";
}

/** Milliseconds since `time` (RFC 3339) at `now`, at least 0; null when either is not known. */
export function ageMs(time, now) {
  const at = parseTime(time);
  return at === null || now === null ? null : Math.max(0, now - at);
}

/**
 * Whether the agent's heartbeat is overdue by its own rhythm, as of the feed's last message; counted
 * from `since` where the server was not there before.
 */
export function isLate(agent, heardAt, since) {
  const at = since === undefined ? heardOf(agent) : parseTime(since);
  return at !== null && heardAt !== null && heardAt - at > lateAfterMs(agent);
}

/** When the agent was heard: parsed once for each of its objects, which are judged again and again. */
function heardOf(agent) {
  let at = heardTimes.get(agent);
  if (at === undefined) {
    at = parseTime(agent.last_update_time);
    heardTimes.set(agent, at);
  }
  return at;
}

const heardTimes = new WeakMap();

/** How long the agent may be silent before it is late. */
export function lateAfterMs(agent) {
  const interval = Math.max(agent.interval_ms ?? ASSUMED_INTERVAL_MS, FASTEST_INTERVAL_MS);
  return interval * LATE_INTERVALS + LATE_SLACK_MS;
}

/** Tasks with the longest-running first; those without a readable start last, as sent. */
export function byAge(tasks) {
  const start = (task) => parseTime(task.started_at) ?? Infinity;
  return tasks.toSorted((a, b) => Math.sign(start(a) - start(b)) || 0);
}

/** The `most` most common of `counts`, an iterable of states with their numbers, by name. */
export function mostCommon(counts, most) {
  const byName = ([a], [b]) => (a < b ? -1 : 1);
  return [...counts].sort((a, b) => b[1] - a[1] || byName(a, b)).slice(0, most).sort(byName);
}

/**
 * The kind of a live agent's state as of `heardAt`, the feed's last message: one of `SEVERITY`.
 * `unheardSince` is the time of the server's restart if the agent was not heard since.
 */
export function kindOf(agent, heardAt, unheardSince = null) {
  if (unheardSince !== null) return "unheard";
  return isLate(agent, heardAt) ? "late" : (KINDS[agent.status] ?? "other");
}

/** `lost` if it fell silent or left tasks behind, else `offline`. */
export function kindOfDeparture({ reason, running_tasks: tasks }) {
  return reason === "timeout" || tasks?.length > 0 ? "lost" : "offline";
}

/** The key by which a filter knows the state of `agent`, of `kind`: the page's word or its own. */
export function stateOf(kind, agent) {
  if (PAGE_STATES.has(kind)) return kind;
  return PAGE_STATES.has(agent.status) ? OWN + agent.status : agent.status;
}

/** The agent's own status that a key of `stateOf` stands for; null if it is the page's word. */
export function ownStatus(state) {
  if (state.startsWith(OWN)) return state.slice(OWN.length);
  return PAGE_STATES.has(state) ? null : state;
}

/** Whether an agent's own status is also a word of the page, so that it has to be quoted. */
export function isPageWord(status) {
  return PAGE_STATES.has(status);
}

/** Whether memory or a disk is nearly full. A CPU at 100 % is at work. */
export function isHigh({ memory_usage: memory, disk_usage: disk }) {
  return memory >= HOT_PERCENT || disk >= HOT_PERCENT;
}

/**
 * What the page makes of `metrics`, an agent or a departure of a feed: `kind`, `state` (the key of
 * a filter), `high` and `trouble` (of `TROUBLE`). `heardAt` is the feed's, `unheardSince` as for
 * `kindOf`, `isSeen` tells of a loss whether someone marked it.
 */
export function judge(metrics, heardAt, unheardSince = null, isSeen = () => false) {
  if (metrics.last_update_time === undefined) {
    const kind = kindOfDeparture(metrics);
    const isFresh = kind === "lost" && (ageMs(metrics.at, heardAt) ?? 0) <= LOSS_MS && !isSeen(metrics);
    const lost = metrics.running_tasks?.length > 0 ? TROUBLE.LOST_WITH_TASKS : TROUBLE.LOST;
    return { kind, state: kind, high: false, trouble: isFresh ? lost : TROUBLE.GONE };
  }
  const kind = kindOf(metrics, heardAt, unheardSince);
  const high = kind !== "late" && kind !== "unheard" && isHigh(metrics);
  const isMissed = kind === "unheard" && isLate(metrics, heardAt, unheardSince) && (ageMs(unheardSince, heardAt) ?? 0) <= LOSS_MS;
  let trouble = high ? TROUBLE.HIGH : TROUBLE.NONE;
  if (kind === "late" || isMissed) trouble = TROUBLE.LATE;
  if (kind === "error") trouble = TROUBLE.ERROR;
  return { kind, state: stateOf(kind, metrics), high, trouble };
}

/** Whether someone should look at what was judged to be `trouble`. */
export function needsAttention(trouble) {
  return trouble <= TROUBLE.HIGH;
}

/**
 * A pool in figures: who needs attention (`attention`, the first by name in `named`), `states` with
 * their numbers (the worst first), losses that are not calm yet and their tasks, loads, and `room`
 * for work. `isSeen` as for `judge`.
 */
export function summarise(feed, isSeen) {
  const heardAt = feed.heardAt();
  const count = { total: 0, unheard: 0, overdue: 0, departed: 0, high: 0, lost: 0, tasksLost: 0 };
  const kinds = new Map(SEVERITY.map((kind) => [kind, 0]));
  const own = new Map();
  const troubled = [];
  const load = { cpu: newLoad(), memory: newLoad() };
  const room = newRoom();
  const take = (metrics, unheardSince) => {
    const judged = judge(metrics, heardAt, unheardSince, isSeen);
    const { kind, state, high, trouble } = judged;
    kinds.set(kind, kinds.get(kind) + 1);
    if (high) count.high += 1;
    if (needsAttention(trouble)) troubled.push({ metrics, kind, trouble });
    if (kind === "lost" && trouble !== TROUBLE.GONE) {
      count.lost += 1;
      count.tasksLost += metrics.running_tasks?.length ?? 0;
    }
    if (kind === "unheard" && needsAttention(trouble)) count.overdue += 1;
    if (kind === "lost" || kind === "offline") count.departed += 1;
    if (ownStatus(state) !== null) own.set(state, [(own.get(state)?.[0] ?? 0) + 1, kind]);
    return kind;
  };
  for (const { last, since } of feed.unheard.values()) take(last, since);
  for (const departure of feed.departed.values()) take(departure, null);
  for (const agent of feed.agents.values()) {
    const kind = take(agent, null);
    if (kind === "late") continue;
    add(load.cpu, agent.cpu_usage);
    add(load.memory, agent.memory_usage);
    addRoom(room, agent, kind);
  }
  const agents = feed.agents.size;
  const reporting = agents - kinds.get("late");
  return {
    agents,
    reporting,
    departed: count.departed,
    late: kinds.get("late"),
    unheard: kinds.get("unheard"),
    overdue: count.overdue,
    paused: kinds.get("paused"),
    goodbyes: kinds.get("offline"),
    attention: troubled.length,
    named: mostUrgent(troubled, MAX_NAMED),
    lost: count.lost,
    // The feed holds no more: there may have been others.
    isCut: count.lost >= MAX_DEPARTED,
    tasksLost: count.tasksLost,
    ...statesOf(kinds, own, count),
    room: { free: room.free, slots: room.isTold && room.slots > 0 ? { free: room.slotsFree, all: room.slots } : null },
    cpu: mean(load.cpu, reporting),
    memory: mean(load.memory, reporting),
    trouble: troubled.length > 0,
  };
}

/**
 * What a pool of the overview asks for: `attention`, the agents that need someone; of them `lost`,
 * those that are gone; and `tasksLost`. `unseen` is how many of its losses nobody has marked as seen.
 */
export function needsOf(pool, unseen) {
  // Which tasks those held that were marked, the overview is not told.
  return { attention: pool.attention + unseen, lost: unseen, tasksLost: unseen === pool.lost ? pool.tasks_lost : 0 };
}

/** The first `most` of those in trouble: by urgency, then by name. Without ordering all, which may be thousands. */
function mostUrgent(troubled, most) {
  const isBefore = (a, b) => a.trouble < b.trouble || (a.trouble === b.trouble && names.compare(a.metrics.agent_name, b.metrics.agent_name) < 0);
  const first = [];
  for (const entry of troubled) {
    if (first.length === most && !isBefore(entry, first[most - 1])) continue;
    const place = first.findIndex((other) => isBefore(entry, other));
    first.splice(place < 0 ? first.length : place, 0, entry);
    if (first.length > most) first.pop();
  }
  return first;
}

/**
 * `states`: each state that someone is in with its `number`, `kind` and whether it is `calm`, the
 * worst first; `others`: agents in statuses too rare to be named.
 */
function statesOf(kinds, own, { high, lost }) {
  const named = mostCommon([...own].map(([state, [number]]) => [state, number]), MAX_STATES);
  const states = named.map(([state, number]) => ({ state, kind: own.get(state)[1], number, calm: false }));
  for (const state of ["lost", "late", "unheard", "offline"]) {
    states.push({ state, kind: state, number: kinds.get(state), calm: state === "lost" && lost === 0 });
  }
  states.push({ state: "high", kind: "high", number: high, calm: false });
  const others = [...own.values()].reduce((sum, [number]) => sum + number, 0) - named.reduce((sum, [, number]) => sum + number, 0);
  const rank = ({ kind, calm }) => CHIPS.indexOf(calm ? "offline" : kind);
  return { states: states.filter(({ number }) => number > 0).sort((a, b) => rank(a) - rank(b)), others };
}

/**
 * Agents that could take another task, and slots where all say how many they have. Only agents that
 * work, or wait for work, take any: not those that are late, in error, paused, or unknown.
 */
function newRoom() {
  return { free: 0, slots: 0, slotsFree: 0, isTold: true };
}

function addRoom(room, { running_tasks: tasks, capacity }, kind) {
  if (kind !== "busy" && kind !== "idle") return;
  const free = capacity === undefined ? 0 : Math.max(0, capacity - (tasks?.length ?? 0));
  if (capacity === undefined) room.isTold = false;
  if (capacity === undefined ? kind === "idle" : free > 0) room.free += 1;
  room.slots += capacity ?? 0;
  room.slotsFree += free;
}

/** RFC 3339 section 5.6; anything else that `Date.parse` would guess at is not a time. */
function parseTime(time) {
  if (!/^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.test(time ?? "")) return null;
  const at = Date.parse(time);
  return Number.isNaN(at) ? null : at;
}

function newLoad() {
  return { sum: 0, max: 0 };
}

function add(load, percent) {
  load.sum += percent;
  load.max = Math.max(load.max, percent);
}

function mean({ sum, max }, count) {
  return count === 0 ? null : { mean: sum / count, max };
}
