// An agent, or a departure, as a cell of a map: what is seen, and what is said when someone looks.

import { ageMs } from "./health.js";
import { percent, say } from "./text.js";

/** The cell of `metrics`, of which `judge` said `judged`. `now` is the feed's `asOf()`. */
export function cellOf(metrics, judged, now) {
  return {
    id: metrics.agent_id,
    name: metrics.agent_name,
    kind: judged.kind,
    load: loadOf(metrics),
    words: () => wordsOf(metrics, judged, now),
  };
}

/** The higher of CPU and memory; null for a departure, which has neither. */
export function loadOf({ cpu_usage: cpu, memory_usage: memory }) {
  return cpu === undefined ? null : Math.max(cpu, memory);
}

/** The task that runs for longest, with its age; null where no start is known. */
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
  if (cpu !== undefined) lines.push(`${say.cpu} ${percent(cpu)} · ${say.memory} ${percent(memory)}`);
  const longest = longestOf(tasks, now);
  if (longest !== null) {
    const { task, age } = longest;
    lines.push(`${task.task_type} #${task.task_id} · ${task.workspace_id} · ${say.span(age)}`);
  }
  if (tasks?.length > 1) lines.push(say.tasks(tasks.length));
  return lines.join("\n");
}
