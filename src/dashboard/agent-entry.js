// What is held of one agent in a list, in sight or not: as little as sorting and filtering need. No
// DOM: a row shows it, once it is in sight.

import { judge, lateAfterMs, TROUBLE } from "./health.js";

/** An agent or a departure of the feed, with what view.js sorts and filters by. */
export class AgentEntry {
  agentId;
  /** The agent or departure as the feed has it, and since when it was not heard after a restart, or null. */
  metrics = null;
  unheardSince = null;
  /** The place by name among all; the list's to set. */
  rank = 0;
  /** What health.js makes of it. */
  kind = "";
  state = "";
  high = false;
  trouble = 0;
  /** When it was heard last, or went, in milliseconds since 1970; null if that is not known. */
  heard = null;
  /** Its row while there is one, and its loads once it was in sight. */
  row = null;
  history = null;

  constructor(agentId) {
    this.agentId = agentId;
  }

  /**
   * Takes what the feed knows now; true when the name is another. Before what a snapshot holds there may
   * have been heartbeats that the page was not told of.
   */
  take(metrics, unheardSince = null, { isSnapshot = false } = {}) {
    const isRenamed = this.metrics?.agent_name !== metrics.agent_name;
    this.metrics = metrics;
    this.unheardSince = this.isDeparted ? null : unheardSince;
    const heard = Date.parse(metrics.last_update_time ?? metrics.at);
    this.heard = Number.isNaN(heard) ? null : heard;
    if (this.history !== null) this.remember(isSnapshot ? 0 : lateAfterMs(metrics));
    return isRenamed;
  }

  /** Settles what health.js judges, as of `heardAt`: lateness comes with time alone. */
  judge(heardAt, isSeen) {
    const { kind, state, high, trouble } = judge(this.metrics, heardAt, this.unheardSince, isSeen);
    this.kind = kind;
    this.state = state;
    this.high = high;
    this.trouble = trouble;
  }

  /** Puts the present loads into `history`; `gapMs` as for `History.add`. */
  remember(gapMs) {
    if (!this.isGone && this.heard !== null) this.history.add(this.heard, this.cpu, this.memory, gapMs);
  }

  get name() {
    return this.metrics.agent_name;
  }

  get isDeparted() {
    return this.metrics.last_update_time === undefined;
  }

  /** Whether what is known is only what was known last. */
  get isGone() {
    return this.isDeparted || this.unheardSince !== null;
  }

  get cpu() {
    return this.isGone ? null : this.metrics.cpu_usage;
  }

  get memory() {
    return this.isGone ? null : this.metrics.memory_usage;
  }

  get disk() {
    return this.isGone ? null : (this.metrics.disk_usage ?? null);
  }

  get tasks() {
    return this.metrics.running_tasks?.length ?? 0;
  }

  /** Whether it should have been heard by now, be it live or not heard since a restart. */
  get isOverdue() {
    return this.trouble === TROUBLE.LATE;
  }

  /** What a filter's text is looked for in. */
  words() {
    const tasks = this.metrics.running_tasks ?? [];
    const parts = tasks.map((task) => `${task.task_type} #${task.task_id} ${task.workspace_id}`);
    return [this.name, this.agentId, ...parts].join("\n");
  }
}
