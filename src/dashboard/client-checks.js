// Whether what a server sent is of the contract (its types stand in metrics-client.d.ts). Pure. What
// `read...` returns is the value that it got, which is not copied, without optional members of wrong types.

/** Why an agent departed. */
const REASONS = new Set(["goodbye", "timeout"]);
/** The kinds of live agents that a pool's `states` counts, and by their first letters its `cells`. */
const KINDS = ["busy", "idle", "late", "error", "paused", "other"];
/** An agent's kind and the tens digit of its load, for each agent. */
const CELLS = /^(?:[bilepo]\d)*$/;
/** A link must lead to the web: `javascript:` runs in the page that shows it. */
const WEB_URL = /^https?:\/\//i;

export const isRecord = (value) => typeof value === "object" && value !== null;
export const isId = (value) => isText(value) && value !== "";
export const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
/** Servers of the original design send none. */
export const isSeq = (value) => value === undefined || isCount(value);
const isText = (value) => typeof value === "string";
const isDictionary = (value, isRight) => isRecord(value) && !Array.isArray(value) && Object.values(value).every(isRight);

/** The optional members of a task, and what each must be. */
const OF_TASK = Object.entries({
  title: isText,
  url: (value) => isText(value) && WEB_URL.test(value),
});
/** The optional members of an agent, likewise. */
const OF_AGENT = Object.entries({
  capacity: isCount,
  disk_usage: Number.isFinite,
  labels: (value) => isDictionary(value, isText),
  note: isText,
  version: isText,
  finished_tasks: Array.isArray,
  recent_tasks: Array.isArray,
});
const OF_POOL = Object.entries({
  app_keys: (value) => Array.isArray(value) && value.every(isText),
  cells: (value) => isText(value) && CELLS.test(value),
});

/** Milliseconds since 1970, or null. */
export function parseTime(text) {
  const time = isText(text) ? Date.parse(text) : NaN;
  return Number.isFinite(time) ? time : null;
}

/** A live agent, or null. */
export function readAgent(value) {
  if (!isAgent(value)) return null;
  value.running_tasks.forEach(dropWrongOfTask);
  dropWrong(value, OF_AGENT);
  if (value.finished_tasks !== undefined) value.finished_tasks = finishedTasks(value.finished_tasks);
  if (value.recent_tasks !== undefined) value.recent_tasks = finishedTasks(value.recent_tasks);
  return value;
}

/** A departed agent, or null. */
export function readDeparture(value) {
  if (!isRecord(value) || !isId(value.agent_id) || !isText(value.agent_name)) return null;
  if (!REASONS.has(value.reason) || parseTime(value.at) === null || !areTasks(value.running_tasks)) return null;
  value.running_tasks.forEach(dropWrongOfTask);
  return value;
}

/** Why an agent departed; a timeout where the server does not say. */
export function readReason(value) {
  return REASONS.has(value) ? value : "timeout";
}

/** How many departed, or null. */
export function readTotals(value) {
  if (!isRecord(value) || !isCount(value.lost) || !isCount(value.goodbyes)) return null;
  return { lost: value.lost, goodbyes: value.goodbyes };
}

/** A pool in figures, or null. */
export function readPool(value) {
  if (!isRecord(value) || !isId(value.pool_id) || !isText(value.name)) return null;
  const { agents, departed, cpu, memory, states, late, attention, lost, tasks_lost, last_loss_at, free } = value;
  if (!isRecord(agents) || !isCount(agents.total) || !isDictionary(agents.by_status, isCount)) return null;
  if (!isLoad(cpu) || !isLoad(memory)) return null;
  if (!isRecord(states) || !KINDS.every((kind) => isCount(states[kind]))) return null;
  if (![departed, late, attention, lost, tasks_lost, free].every(isCount)) return null;
  if (last_loss_at !== null && parseTime(last_loss_at) === null) return null;
  dropWrong(value, OF_POOL);
  return value;
}

/** One agent's history, or null. */
export function readSeries(value) {
  if (!isRecord(value) || !isSeries(value.cpu) || !isSeries(value.memory)) return null;
  if (value.cpu.length !== value.memory.length) return null;
  return { cpu: value.cpu, memory: value.memory };
}

function isAgent(value) {
  if (!isRecord(value) || !isId(value.agent_id) || !isText(value.agent_name)) return false;
  const { cpu_usage, memory_usage, running_tasks, last_update_time, status, interval_ms } = value;
  if (!Number.isFinite(cpu_usage) || !Number.isFinite(memory_usage) || !areTasks(running_tasks)) return false;
  return isText(last_update_time) && isText(status) && (interval_ms === null || Number.isFinite(interval_ms));
}

function areTasks(value) {
  return Array.isArray(value) && value.every(isTask);
}

function isTask(value) {
  if (!isRecord(value) || !(Number.isFinite(value.task_id) || isText(value.task_id))) return false;
  return isText(value.task_type) && isText(value.workspace_id) && isText(value.started_at);
}

function isFinishedTask(value) {
  return isTask(value) && parseTime(value.finished_at) !== null && (value.exit_code === null || Number.isSafeInteger(value.exit_code));
}

function finishedTasks(list) {
  const right = list.filter(isFinishedTask);
  right.forEach(dropWrongOfTask);
  return right;
}

function isLoad(value) {
  return value === null || (isRecord(value) && Number.isFinite(value.mean) && Number.isFinite(value.max));
}

function isSeries(value) {
  return Array.isArray(value) && value.every((step) => step === null || Number.isFinite(step));
}

function dropWrongOfTask(task) {
  dropWrong(task, OF_TASK);
}

function dropWrong(value, members) {
  for (const [name, isRight] of members) {
    if (value[name] !== undefined && !isRight(value[name])) delete value[name];
  }
}
