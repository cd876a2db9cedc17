// An agent, or a departure, as a cell of a map: what is seen, and what is said when someone looks.

import { ageMs } from "./health.js";
import { percent, say } from "./text.js";

/** The cell of `metrics`, of which `judge` said `judged`. `now` is the feed's `asOf()`. */
export function cellOf(metrics, judged, now) {
  return {
    id: metrics.agent_id,
    name: metrics.agent_name,
    kind: judged.kind,
    load: loadOf(metrics, judged),
    words: () => wordsOf(metrics, judged, now),
  };
}

/** The higher of CPU and memory; null where none is known of now: of a departure, or since a restart. */
export function loadOf({ cpu_usage: cpu, memory_usage: memory }, { kind }) {
  return cpu === undefined || kind === "unheard" ? null : Math.max(cpu, memory);
}

/** Until when it is known what the agent runs: `now`, or when it went or was heard last. */
export function knownUntil({ last_update_time: heard, at }, { kind }, now) {
  return heard !== undefined && kind !== "unheard" ? now : Date.parse(heard ?? at);
}

/** The task that runs for longest, with its age at `now`; null where no start is known. */
export function longestOf(tasks, now) {
  let longest = null;
  for (const task of tasks ?? []) {
    const age = ageMs(task.started_at, now);
    if (age !== null && age > (longest?.age ?? -1)) longest = { task, age };
  }
  return longest;
}

/** How the state is called; of what is silent, since when. */
export function stateWords(metrics, { kind, state }, now) {
  const name = say.stateName(state);
  if (kind !== "late" && kind !== "lost") return name;
  const age = ageMs(metrics.last_update_time ?? metrics.at, now);
  return age === null ? name : `${name} · ${say.span(age)}`;
}

function wordsOf(metrics, judged, now) {
  const lines = [stateWords(metrics, judged, now)];
  const { cpu_usage: cpu, memory_usage: memory, running_tasks: tasks } = metrics;
  if (loadOf(metrics, judged) !== null) lines.push(`${say.cpu} ${percent(cpu)} · ${say.memory} ${percent(memory)}`);
  const longest = longestOf(tasks, knownUntil(metrics, judged, now));
  if (longest !== null) {
    const { task, age } = longest;
    lines.push(`${task.task_type} #${task.task_id} · ${task.workspace_id} · ${say.span(age)}`);
  }
  if (tasks?.length > 1) lines.push(say.tasks(tasks.length));
  return lines.join("\n");
}
