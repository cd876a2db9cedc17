// Every word that the page says, and how it writes numbers and times. Pure; no DOM.

import { HOT_PERCENT, WARM_PERCENT } from "./health.js";

/** One decimal, and never rounded up over a boundary at which the colour changes. */
export function percent(value) {
  let rounded = Math.round(value * 10) / 10;
  for (const boundary of [WARM_PERCENT, HOT_PERCENT, 100]) {
    if (value < boundary && rounded >= boundary) rounded = boundary - 0.1;
  }
  return `${rounded.toFixed(1)} %`;
}

/** A span of time with its two largest units: `7 s`, `2 min 05 s`, `3 h 10 min`, `2 d 4 h`. */
export function span(ms) {
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${two(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${two(minutes % 60)} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function two(number) {
  return String(number).padStart(2, "0");
}

function count(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

/** The sentences, by what they are for. */
export const say = {
  agents: (number) => count(number, "agent", "agents"),
  ago: (ms) => `${span(ms)} ago`,
  goneFor: (ms) => `offline for ${span(ms)}`,
  unknown: "unknown",

  /** `trouble` is what keeps the page from being live, or null. */
  title: (place, offline, trouble) =>
    [trouble, offline > 0 ? `${offline} offline` : null, place, "agent-metrics"]
      .filter((part) => part !== null)
      .join(" · "),

  connection: {
    connecting: () => "Connecting…",
    live: () => "Live",
    waiting: (seconds) => (seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting…"),
    refused: () => "Refused",
    stopped: () => "Not live",
  },
  loginNeeded: "Login needed",
  disconnected: "Disconnected",
  stale: (ms, reason) =>
    `Not connected${reason ? `: ${reason}` : ""}. You see what was known ${span(ms)} ago.`,
  unreachable: (reason) => `The server cannot be reached${reason ? ` (${reason})` : ""}. The page keeps trying.`,
  refused: (reason) => `The server refused this page: ${reason}`,
  restarted: (time) => `The server restarted (seen at ${time}). Agents show up again with their next heartbeat.`,
  noSuchPool: (poolId) => `There is no pool “${poolId}” here, or you may not see it.`,
  allPools: "All pools",

  noPools: "This server has no pool that you may see. Pools are set in the server's configuration.",
  waitingForPool: "Waiting for the server…",

  state: (number, status) => `${number} ${status}`,
  late: (number) => `${number} late`,
  departed: (number) => `${number} offline`,
  hot: (number) => `${number} at 90 % or more`,
  room: ({ agents, departed, reporting, room }) => {
    if (agents + departed === 0) return "No agent has reported yet";
    if (reporting === 0) return "No agent reports any more";
    return `Room for another job on ${room} of ${count(reporting, "agent", "agents")}`;
  },
  meanAndMax: (load) => `${percent(load.mean)} on average, ${percent(load.max)} at the highest`,
  highest: (load) => `max ${percent(load.max)}`,

  lateBadge: "late",
  offlineBadge: "offline",
  noTask: "No task",
  moreTasks: (number) => `${number} more`,
  fewerTasks: "Show fewer",
  lastHeld: (number) => (number === 0 ? "Held no task" : `Was running ${count(number, "task", "tasks")}:`),
  reason: (reason) =>
    ({ goodbye: "said goodbye", timeout: "fell silent" })[reason] ?? reason,

  login: {
    failed: "The server does not know this token.",
    unreachable: "The server cannot be reached. Try again in a moment.",
    other: (detail) => `The server said no: ${detail}`,
  },
};

/** The heartbeat to paste, for a pool without agents. */
export function curlLine(origin) {
  return [
    `curl -X POST ${origin}/api/v1/agents/my-agent/ping \\`,
    `  -H "X-App-Key: KEY" -H "X-App-Secret: SECRET" \\`,
    `  -d '{"status":"idle","cpu_usage":12.5,"memory_usage":40}'`,
  ].join("\n");
}

/** The command that reports a machine's real figures, for a pool without agents. */
export function agentCommand(origin) {
  return [`AGENT_METRICS_APP_SECRET=SECRET \\`, `  agent-metrics agent --server ${origin} --app-key KEY`].join("\n");
}
