// One agent: its state, its loads over a quarter of an hour, all of its tasks, and what it reports.

import { poolHref } from "./address.js";
import { Chart } from "./chart.js";
import { ageMs, judge, lateAfterMs, needsAttention } from "./health.js";
import { fetchHistory, PoolFeed, Refusal } from "./metrics-client.js";
import { copy, Meter, setShown, setText } from "./parts.js";
import { browserStorage, Seen } from "./seen.js";
import { whyOf } from "./sentence.js";
import { TaskList } from "./task-list.js";
import { clockTime, say, span } from "./text.js";

/** What changed comes at once in so many milliseconds at most. */
const BATCH_MS = 250;
/** The history is read anew this often: one of its steps. */
const HISTORY_PERIOD_MS = 10_000;

/** The view of one agent; its interface is in app.js. */
export class AgentPage {
  feeds;
  #pool;
  #agentId;
  #feed;
  #schedule;
  #parts;
  #cpu;
  #memory;
  #disk;
  #chart;
  #tasks;
  #seen;
  #history = null;
  #historyAt = -Infinity;
  #isAsking = false;
  /** A server that keeps no history is not asked again. */
  #isHistoryOff = false;
  /** What the feed knows of it: an agent or a departure, and since when it is unheard; null for nothing. */
  #metrics = null;
  #unheardSince = null;
  /** What is shown of it. */
  #drawn = null;
  #drawnSince = null;

  constructor(place, { pools: [pool], view, schedule }) {
    place.replaceChildren(copy("agent-page"));
    this.#pool = pool;
    this.#agentId = view.agentId;
    this.#schedule = schedule;
    this.#feed = new PoolFeed({ poolId: pool.pool_id, batchMs: BATCH_MS });
    this.feeds = [this.#feed];
    this.#seen = new Seen(pool.pool_id, browserStorage());
    const part = (selector) => place.querySelector(selector);
    this.#parts = { unknown: part("#unknown"), unknownText: part("#unknown-text"), agent: part("#agent"), name: part(".agent-name"), badge: part(".badge"), about: part(".about-state"), loads: part(".agent-loads"), disk: part(".disk-load"), note: part(".agent-note"), facts: part(".facts") };
    part("#unknown-link").href = poolHref(pool.pool_id);
    this.#cpu = new Meter(part(".cpu"), say.cpu);
    this.#memory = new Meter(part(".memory"), say.memory);
    this.#disk = new Meter(part(".disk"), say.disk);
    this.#chart = new Chart(part(".agent-chart"));
    this.#tasks = new TaskList(part(".agent-tasks"));
    this.#feed.addEventListener("change", ({ detail }) => {
      if (detail.kind === "snapshot") this.#readHistory();
    });
  }

  get heading() {
    return this.#metrics?.agent_name ?? this.#agentId;
  }

  get crumbs() {
    return [[this.#pool.name, poolHref(this.#pool.pool_id)], [this.heading, null]];
  }

  start() {
    this.#feed.start();
  }

  draw() {
    if (this.#feed.epoch === null) return;
    this.#find();
    const { unknown, unknownText, agent } = this.#parts;
    setShown(unknown, this.#metrics === null);
    setShown(agent, this.#metrics !== null);
    if (this.#metrics === null) {
      setText(unknownText, say.noSuchAgent(this.#agentId));
      return;
    }
    if (this.#drawn !== this.#metrics || this.#drawnSince !== this.#unheardSince) this.#drawFigures();
    this.tick();
  }

  tick() {
    if (performance.now() - this.#historyAt >= HISTORY_PERIOD_MS && !document.hidden) this.#readHistory();
    if (this.#metrics === null) return;
    this.#drawState();
    this.#drawFacts();
    this.#tasks.tick(this.#isGone ? this.#lastKnownAt : this.#feed.asOf());
    const { cpu_usage: cpu, memory_usage: memory } = this.#metrics;
    const last = this.#isGone ? null : { at: this.#lastKnownAt, cpu, memory };
    this.#chart.show(this.#history, this.#feed.asOf(), last);
  }

  summary() {
    // A hidden page is not drawn, but its title is seen.
    this.#find();
    if (this.#metrics === null) return null;
    const { kind, trouble } = this.#judge();
    const isTrouble = needsAttention(trouble);
    const words = isTrouble ? whyOf({ metrics: this.#metrics, kind, trouble }) : null;
    const unheard = [...this.#feed.unheard.values()].filter(({ last }) => last.last_update_time !== undefined);
    return { words, trouble: isTrouble, unheard: unheard.length };
  }

  /** Looks for the agent in the feed. */
  #find() {
    const { agents, departed, unheard } = this.#feed;
    const entry = unheard.get(this.#agentId);
    this.#metrics = agents.get(this.#agentId) ?? departed.get(this.#agentId) ?? entry?.last ?? null;
    this.#unheardSince = this.#isDeparted ? null : (entry?.since ?? null);
  }

  get #isDeparted() {
    return this.#metrics?.last_update_time === undefined;
  }

  /** Whether what is shown is only what was known last. */
  get #isGone() {
    return this.#isDeparted || this.#unheardSince !== null;
  }

  /** When the agent was heard last; of a departure, when it went. */
  get #lastKnownAt() {
    return Date.parse(this.#metrics.last_update_time ?? this.#metrics.at);
  }

  #judge() {
    return judge(this.#metrics, this.#feed.heardAt(), this.#unheardSince, this.#seen.has);
  }

  /** What heartbeats change, and time alone does not. */
  #drawFigures() {
    const metrics = this.#metrics;
    this.#drawn = metrics;
    this.#drawnSince = this.#unheardSince;
    const { name, agent, loads, disk, note } = this.#parts;
    setText(name, metrics.agent_name);
    agent.classList.toggle("gone", this.#isGone);
    setShown(loads, !this.#isGone);
    this.#cpu.show(metrics.cpu_usage ?? null);
    this.#memory.show(metrics.memory_usage ?? null);
    setShown(disk, metrics.disk_usage !== undefined);
    this.#disk.show(metrics.disk_usage ?? null);
    setShown(note, metrics.note !== undefined);
    setText(note, metrics.note ?? "");
    this.#tasks.show(metrics.running_tasks, this.#isGone);
  }

  #drawState() {
    const { badge, about } = this.#parts;
    const { kind, state, trouble } = this.#judge();
    badge.dataset.kind = kind;
    badge.classList.toggle("late", kind === "late");
    setText(badge, say.stateName(state));
    badge.classList.toggle("trouble", needsAttention(trouble));
    setText(about, this.#aboutState(kind));
  }

  /** What the badge leaves open: since when, and why. */
  #aboutState(kind) {
    const metrics = this.#metrics;
    const now = this.#feed.asOf();
    if (this.#isDeparted) return say.agentGone(metrics.reason, ageMs(metrics.at, now) ?? 0);
    const silence = ageMs(metrics.last_update_time, now) ?? 0;
    if (kind === "unheard") return say.agentUnheard(clockTime(this.#unheardSince), silence);
    if (kind === "late") return say.agentLate(silence, lateAfterMs(metrics), say.status(metrics.status));
    return say.agentHeard(silence);
  }

  #drawFacts() {
    const { agent_id: id, interval_ms: interval, version, capacity, labels, running_tasks: tasks, last_update_time: heard, at } = this.#metrics;
    const facts = [[say.fact.id, id]];
    if (heard !== undefined) facts.push([say.fact.heard, clockTime(heard, "medium")]);
    if (at !== undefined) facts.push([say.fact.gone, clockTime(at, "medium")]);
    if (heard !== undefined) facts.push([say.fact.rhythm, interval === null ? say.unknown : say.every(span(interval))]);
    if (capacity !== undefined) facts.push([say.fact.capacity, say.slots(tasks.length, capacity)]);
    if (version !== undefined) facts.push([say.fact.version, version]);
    for (const [name, value] of Object.entries(labels ?? {})) facts.push([name, value]);
    const { facts: list } = this.#parts;
    const texts = facts.flat();
    while (list.childElementCount > texts.length) list.lastElementChild.remove();
    texts.forEach((text, index) => {
      const element = list.children[index] ?? list.appendChild(document.createElement(index % 2 === 0 ? "dt" : "dd"));
      setText(element, text);
    });
  }

  /** Reads the last quarter of an hour. What cannot be read is not shown: the feed says what is wrong. */
  async #readHistory() {
    if (this.#isAsking || this.#isHistoryOff) return;
    this.#isAsking = true;
    this.#historyAt = performance.now();
    try {
      const { end, stepMs, agents } = await fetchHistory(this.#pool.pool_id, { agents: [this.#agentId] });
      const series = agents.get(this.#agentId);
      this.#history = series === undefined ? null : { end, stepMs, ...series };
      this.#schedule();
    } catch (error) {
      // The next try is in `HISTORY_PERIOD_MS`.
      if (error instanceof Refusal && error.status === 404) this.#isHistoryOff = true;
    }
    this.#isAsking = false;
  }
}
