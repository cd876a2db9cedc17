// What the page says, in English. The fixed texts of the HTML files are there, not here. Pure; no
// DOM. Every other language has the same members.

import { isPageWord, ownStatus } from "./health.js";
import { MAX_DEPARTED } from "./metrics-client.js";
import { percent, spanIn } from "./numbers.js";

const units = {
  seconds: (seconds) => `${seconds}s`,
  minutes: (minutes) => `${minutes}m`,
  hours: (hours, minutes) => `${hours}h ${minutes}m`,
  days: (days, hours) => `${days}d ${hours}h`,
};
const span = (ms) => spanIn(units, ms);

function count(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

/** Filters of the page's own words; of all others nothing is inherited. */
const stateNames = {
  __proto__: null,
  lost: "lost",
  late: "late",
  high: "memory or disk full",
  unheard: "not heard",
  offline: "offline",
  attention: "needs attention",
};
/** Kinds of states, in maps' legends. */
const kindNames = { __proto__: null, lost: "lost", error: "in error", late: "late", unheard: "not heard", paused: "paused", other: "other", busy: "busy", idle: "idle" };
const stateCounts = {
  __proto__: null,
  lost: (number) => `${number} lost`,
  late: (number) => `${number} late`,
  high: (number) => `${number} at 90 % memory or disk`,
  unheard: (number) => `${number} not heard since the restart`,
  offline: (number) => `${number} offline`,
  attention: (number) => `${number} ${number === 1 ? "needs" : "need"} attention`,
};

/** The sentences, by what they are for. */
export const say = {
  span,
  agents: (number) => count(number, "agent", "agents"),
  ago: (ms) => `${span(ms)} ago`,
  heardAgo: (ms) => `last heard ${span(ms)} ago`,
  goneFor: (ms) => `offline for ${span(ms)}`,
  unknown: "unknown",
  pools: "Agent pools",

  /** `lost` is what keeps the page from being live, `trouble` what a view says is wrong, or null. */
  title: (lost, trouble, places) => [lost, trouble, ...places, "agent-metrics"].filter((part) => part !== null).join(" · "),

  connection: {
    connecting: () => "Connecting…",
    live: () => "Live",
    silent: () => "Not live",
    waiting: (seconds) => (seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting…"),
    refused: () => "Refused",
    stopped: () => "Not live",
  },
  loginNeeded: "Login needed",
  disconnected: "Disconnected",
  stale: (ms, reason) =>
    `Not connected${reason ? `: ${reason}` : ""}. You see what was known ${span(ms)} ago.`,
  silent: (ms) => `The server has sent nothing for ${span(ms)}. You see what was known then.`,
  unreachable: (reason) => `The server cannot be reached${reason ? ` (${reason})` : ""}. The page keeps trying.`,
  refused: (reason) => `The server refused this page: ${reason}`,
  restarted: (time, unheard) =>
    `The server restarted at ${time}. ${unheard === 0 ? "Every agent that was live before has been heard again." : `${count(unheard, "agent has", "agents have")} not been heard since.`}`,
  noSuchPool: (poolId) => `There is no pool “${poolId}” here, or you may not see it.`,
  // The overview.
  restartedPools: (time, missing) =>
    `The server restarted at ${time}. ${missing === 0 ? "Every pool has at least as many agents as before." : `${count(missing, "agent fewer reports", "agents fewer report")} than before.`}`,
  poolsHeadline: ({ pools, agents, troubled, attention, tasksLost }) => {
    if (attention > 0) {
      const lost = tasksLost > 0 ? `, ${count(tasksLost, "task was", "tasks were")} lost` : "";
      return `${count(attention, "agent needs", "agents need")} attention in ${count(troubled, "pool", "pools")}${lost}`;
    }
    return agents === 0 ? `No agent reports in ${count(pools, "pool", "pools")}` : `All ${agents} well in ${count(pools, "pool", "pools")}`;
  },
  needs: ({ attention, tasksLost }) => `${stateCounts.attention(attention)}${tasksLost > 0 ? `, ${count(tasksLost, "task", "tasks")} lost` : ""}`,
  freeOf: (free, total) => `${free} of ${total} free`,
  /** Agents by the kind of their state. */
  kind: (number, kind) => (kind === "error" ? `${number} in error` : `${number} ${kind}`),
  // An agent's page.
  agentHeard: (silence) => `heard ${span(silence)} ago`,
  agentLate: (silence, limit, status) => `silent for ${span(silence)}, expected within ${span(limit)}; was ${status} then`,
  agentUnheard: (time, silence) => `not heard since the server restarted at ${time}, last heard ${span(silence)} ago`,
  agentGone: (reason, ms) => `${reason === "goodbye" ? "said goodbye" : "fell silent and was given up"} ${span(ms)} ago`,
  tasksRunning: (number) => count(number, "running task", "running tasks"),
  tasksHeld: (number) => (number === 0 ? "Tasks" : `Was running ${count(number, "task", "tasks")}`),
  startedAt: (time) => `started at ${time}`,
  fact: { id: "Agent id", heard: "Last heartbeat", gone: "Gone since", rhythm: "Heartbeats", capacity: "Tasks", version: "Version" },
  every: (interval) => `every ${interval}`,
  slots: (running, capacity) => `${running} of at most ${capacity}`,
  chartWords: (cpu, memory) =>
    `The last 15 minutes: CPU ${percent(cpu.min)} to ${percent(cpu.max)}, memory ${percent(memory.min)} to ${percent(memory.max)}`,
  chartEmpty: "Nothing was heard in the last 15 minutes",
  noSuchAgent: (agentId) => `No agent “${agentId}” has reported to this pool since the server started, or it left long ago.`,
  noPools: "This server has no pool that you may see. Pools are set in the server's configuration.",
  /** Why a connection ended, in the client module's words. */
  cause: (reason) => reason,

  /** An agent's own status; quoted where the page says the same of other agents. */
  status: (status) => (isPageWord(status) ? `“${status}”` : status),
  /** `state` is a filter's key. */
  stateName: (state) => stateNames[state] ?? say.status(ownStatus(state)),
  state: (number, state) => (stateCounts[state] ?? ((n) => `${n} ${say.status(ownStatus(state))}`))(number),
  others: (number) => `${number} in other states`,
  room: ({ agents, departed, unheard, reporting, room }) => {
    if (agents + departed + unheard === 0) return "No agent has reported yet";
    if (agents === 0 && unheard > 0) return "No agent has been heard since the restart";
    if (reporting === 0) return "No agent reports any more";
    if (room.slots !== null) return `${room.slots.free} of ${count(room.slots.all, "slot", "slots")} free`;
    return `Room on ${room.free} of ${count(agents, "agent", "agents")}`;
  },
  // One pool: the sentence on top, and what goes with it.
  headline: ({ agents, departed, unheard, attention, paused, tasksLost, isCut }) => {
    if (attention > 0) {
      const lost = tasksLost > 0 ? `, ${count(tasksLost, "task was", "tasks were")} lost` : "";
      return `${isCut ? "At least " : ""}${stateCounts.attention(attention)}${lost}`;
    }
    if (agents + departed + unheard === 0) return "Nothing reported yet";
    const well = agents - paused;
    const parts = [];
    if (well > 0) parts.push(well === agents && unheard === 0 ? (well === 1 ? "The one agent is well" : `All ${well} well`) : `${well} well`);
    if (paused > 0) parts.push(`${paused} paused`);
    if (unheard > 0) parts.push(`${unheard} not heard yet since the restart`);
    return parts.length > 0 ? parts.join(", ") : "No agent reports any more";
  },
  whyLost: (tasks) => (tasks === 0 ? "lost" : `lost with ${count(tasks, "task", "tasks")}`),
  whyMemory: (used) => `memory ${percent(used)}`,
  whyDisk: (used) => `disk ${percent(used)}`,
  showAll: (number) => `show all ${number}`,
  andMore: (number) => `and ${number} more`,
  /** No more are remembered, so that there may have been more. */
  goodbyes: (number) => `${number < MAX_DEPARTED ? number : `at least ${number}`} said goodbye`,
  markSeen: (number) => `Seen: ${count(number, "loss needs", "losses need")} no more attention`,
  map: "Map of the agents",
  copied: "Copied",
  pressCopyKeys: (keys) => `Selected: press ${keys}`,

  meanAndMax: (load) => `${percent(load.mean)} on average, ${percent(load.max)} at the highest`,
  highest: (load) => `max ${percent(load.max)}`,
  cpu: "CPU",
  memory: "Memory",
  disk: "Disk",
  trend: (ms) => `CPU and memory over the last ${span(ms)}`,

  unheardSince: (time) => `since the restart at ${time}`,
  noTask: "No task",
  moreTasks: (number) => `+${number} more ${number === 1 ? "task" : "tasks"}`,
  lastHeld: (number) => (number === 0 ? "held no task" : "was running"),
  reason: (reason) => ({ goodbye: "said goodbye", timeout: "fell silent" })[reason] ?? reason,

  shown: (shown, total) => (shown === total ? `All ${total} shown` : `${shown} of ${total} shown`),
  ascending: "Ascending order",
  descending: "Descending order",

  // Maps and walls.
  wall: "Wall",
  wallMore: (shown, total) => `The first ${shown} of ${total} pools. Choose with /wall?pools=a,b`,
  kindCount: (number, kind) => `${number} ${kindNames[kind]}`,
  tasks: (number) => count(number, "task", "tasks"),
  tasksWithAge: (number, longest) => {
    if (longest === null) return count(number, "task", "tasks");
    return number === 1 ? `1 task · ${span(longest)}` : `${number} tasks · longest ${span(longest)}`;
  },

  login: {
    failed: "The server does not know this token.",
    stillIn: (problem) => `You are still logged in. ${problem}`,
    unreachable: "The server cannot be reached. Try again in a moment.",
    other: (detail) => `The server said no: ${detail}`,
  },
};
