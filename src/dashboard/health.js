// What the numbers mean: levels, lateness, and a pool in a few figures. Pure; no DOM, no clock.

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

/** States that are named; further ones are one number. Agents may call their state anything. */
export const MAX_STATES = 20;

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
export function isLate(agent, heardAt, since = agent.last_update_time) {
  const age = ageMs(since, heardAt);
  return age !== null && age > lateAfterMs(agent);
}

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

/** A pool in figures: agents by state, loads, and how many agents have room for another job. */
export function summarise(feed) {
  const heardAt = feed.heardAt();
  const byState = new Map();
  const load = { cpu: newLoad(), memory: newLoad() };
  let late = 0;
  let hot = 0;
  let room = 0;
  for (const agent of feed.agents.values()) {
    if (isLate(agent, heardAt)) {
      late += 1;
      continue;
    }
    byState.set(agent.status, (byState.get(agent.status) ?? 0) + 1);
    add(load.cpu, agent.cpu_usage);
    add(load.memory, agent.memory_usage);
    const worst = Math.max(agent.cpu_usage, agent.memory_usage);
    if (worst >= HOT_PERCENT) hot += 1;
    if (worst < WARM_PERCENT) room += 1;
  }
  const departed = [...feed.departed.values()];
  let unheard = 0;
  let overdue = 0;
  for (const { last, since } of feed.unheard.values()) {
    if (last.last_update_time === undefined) {
      departed.push(last);
      continue;
    }
    unheard += 1;
    if (isLate(last, heardAt, since)) overdue += 1;
  }
  const lost = departed.filter(({ reason }) => reason === "timeout").length;
  const reporting = feed.agents.size - late;
  const named = mostCommon(byState, MAX_STATES);
  return {
    agents: feed.agents.size,
    departed: departed.length,
    unheard,
    overdue,
    byState: named,
    others: named.reduce((left, [, number]) => left - number, reporting),
    late,
    lost,
    hot,
    room,
    reporting,
    cpu: mean(load.cpu, reporting),
    memory: mean(load.memory, reporting),
    trouble: late > 0 || overdue > 0 || lost > 0 || hot > 0,
  };
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
