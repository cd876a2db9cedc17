// The row of the table, or the card of the grid, that shows one agent while it is in sight. A row
// that went out of sight is used again for another agent. Knows nothing of the other agents.

import { agentHref } from "./address.js";
import { ageMs, byAge, lateAfterMs } from "./health.js";
import { copy, fillList, Meter, setShown, setText } from "./parts.js";
import { clockTime, say, span } from "./text.js";

/** The width of a chart's box; its height is 100. The page stretches it. */
const CHART_WIDTH = 300;
/** Kinds that the page calls by its own word, whatever the agent's status is. */
const PAGE_WORDS = new Set(["late", "lost", "offline", "unheard"]);

/** `show` ties it to an entry (agent-entry.js), `draw` shows what that knows, `tick` moves ages on. */
export class AgentRow {
  element;
  entry = null;

  #poolId;
  #drawn = null;
  #drawnSince = null;
  #x = null;
  #y = null;
  #index = null;
  #byAge = [];
  #parts = null;
  #meters;
  #lines = [];
  #mostTasks = 0;
  #chart = "";

  constructor(poolId) {
    this.#poolId = poolId;
    this.element = copy("agent-row").firstElementChild;
  }

  /** Shows the name of `entry`, and nothing else yet. */
  show(entry) {
    this.entry = entry;
    entry.row = this;
    this.#drawn = null;
    this.#chart = "";
    this.element.dataset.agent = entry.agentId;
    this.showName();
    this.showGone();
  }

  showName() {
    const { name, agentId } = this.entry;
    const [link, id] = this.element.firstElementChild.children;
    link.href = agentHref(this.#poolId, encodeURIComponent(agentId));
    setText(link.firstElementChild, name);
    link.title = name;
    setText(id, name === agentId ? "" : agentId);
    id.title = id.textContent;
  }

  /** Greys who is gone, in sight or not. */
  showGone() {
    const { classList } = this.element;
    const { isGone } = this.entry;
    if (classList.contains("departed") !== isGone) classList.toggle("departed", isGone);
  }

  /** Stands at `x` and `y` pixels, as number `index` of all. */
  place({ x, y }, index) {
    if (this.#x !== x || this.#y !== y) this.element.style.translate = `${x}px ${y}px`;
    this.#x = x;
    this.#y = y;
    if (this.#index === index) return;
    this.#index = index;
    // Counted from 1, and the header is the first.
    this.element.setAttribute("aria-rowindex", String(index + 2));
  }

  /** Whether the entry knows something that is not shown. */
  get isStale() {
    return this.#drawn !== this.entry.metrics || this.#drawnSince !== this.entry.unheardSince;
  }

  /** Shows what the entry knows; `look` as for `tick`, and `mostTasks` that have room. */
  draw(look) {
    if (this.#parts === null) this.#fill();
    const { entry } = this;
    if (this.isStale || this.#mostTasks !== look.mostTasks) {
      this.#drawn = entry.metrics;
      this.#drawnSince = entry.unheardSince;
      this.#mostTasks = look.mostTasks;
      this.#meters.cpu.show(entry.cpu);
      this.#meters.memory.show(entry.memory);
      this.#meters.disk.show(entry.disk);
      this.#byAge = byAge(entry.metrics.running_tasks ?? []);
      this.#drawTasks();
    }
    this.tick(look);
  }

  /**
   * Moves state and ages on to `now`, and lateness to `heardAt`; the chart spans the last
   * `windowMs`, or is not shown (null). For a row that is drawn.
   */
  tick({ now, heardAt, isSeen, windowMs }) {
    const { entry } = this;
    entry.judge(heardAt, isSeen);
    this.#drawState();
    this.#tickHeard(now);
    // What an agent was running that is gone is as old as it was then.
    const until = entry.isGone ? entry.heard : now;
    this.#lines.forEach((line, index) => line.tick(this.#byAge[index], until));
    if (windowMs !== null) this.#drawChart(now, windowMs);
  }

  /** Gives up all but the name. */
  release() {
    if (this.#parts === null) return;
    while (this.element.childElementCount > 1) this.element.lastElementChild.remove();
    this.#parts = null;
    this.#lines = [];
    this.#drawn = null;
    this.#chart = "";
  }

  /** Makes the cells beside the name. */
  #fill() {
    this.element.append(copy("agent-cells"));
    const part = (selector) => this.element.querySelector(selector);
    this.#parts = {
      badge: part(".badge"),
      heard: part(".heard"),
      reason: part(".reason"),
      none: part(".none"),
      list: part(".tasks ul"),
      more: part(".more"),
      title: part(".chart title"),
      cpuLine: part(".line.cpu"),
      memoryLine: part(".line.memory"),
    };
    this.#meters = {
      cpu: new Meter(part(".load.cpu"), say.cpu),
      memory: new Meter(part(".load.memory"), say.memory),
      disk: new Meter(part(".load.disk"), say.disk),
    };
  }

  #drawState() {
    const { kind, metrics, isGone, isOverdue, tasks, isDeparted } = this.entry;
    const { badge, reason, none } = this.#parts;
    const status = metrics.status === undefined ? "" : say.status(metrics.status);
    setText(badge, PAGE_WORDS.has(kind) ? say.stateName(kind) : status);
    if (badge.dataset.kind !== kind) badge.dataset.kind = kind;
    if (badge.title !== status) badge.title = status;
    const { classList } = this.element;
    const isLost = kind === "lost";
    if (classList.contains("lost") !== isLost) classList.toggle("lost", isLost);
    if (classList.contains("overdue") !== isOverdue) classList.toggle("overdue", isOverdue);
    if (this.element.dataset.kind !== kind) this.element.dataset.kind = kind;
    setText(reason, isDeparted ? say.reason(metrics.reason) : isGone ? say.unheardSince(clockTime(this.entry.unheardSince)) : "");
    setText(none, isGone ? say.lastHeld(tasks) : tasks === 0 ? say.noTask : "");
  }

  /** When it was heard last is told of those that are late or gone: of all others it is a moment ago. */
  #tickHeard(now) {
    const { entry } = this;
    const { heard } = this.#parts;
    const isTold = entry.isGone || entry.kind === "late";
    setShown(heard, isTold);
    if (!isTold) return;
    const time = entry.metrics.last_update_time ?? entry.metrics.at;
    const age = ageMs(time, now);
    // A departure's time is when the server gave it up, up to `evict_after` past its last word.
    const since = entry.isDeparted ? say.goneFor : say.heardAgo;
    setText(heard, age === null ? say.unknown : span(age));
    const words = age === null ? "" : since(age);
    if (heard.title !== words) heard.title = words;
    if (heard.dateTime !== time) heard.dateTime = time;
  }

  #drawTasks() {
    const { list, more } = this.#parts;
    // Of one that is gone, a line says how.
    const most = this.entry.isGone ? Math.max(1, this.#mostTasks - 1) : this.#mostTasks;
    const shown = this.#byAge.slice(0, most);
    fillList(
      list,
      shown,
      () => this.#addLine(),
      (item, task, index) => this.#lines[index].show(task, index === 0 && this.#byAge.length > 1),
    );
    this.#lines.length = shown.length;
    const left = this.#byAge.length - shown.length;
    setShown(more, left > 0);
    if (left <= 0) return;
    const href = agentHref(this.#poolId, encodeURIComponent(this.entry.agentId));
    if (more.getAttribute("href") !== href) more.href = href;
    setText(more, `+${left}`);
    const words = say.moreTasks(left);
    if (more.ariaLabel !== words) more.ariaLabel = words;
  }

  #addLine() {
    const line = new TaskLine();
    this.#lines.push(line);
    return line.element;
  }

  #drawChart(now, windowMs) {
    const { cpuLine, memoryLine, title } = this.#parts;
    const { history, metrics, isGone } = this.entry;
    // An empty chart has its name too.
    setText(title, say.trend(windowMs));
    if (history === null) return;
    const state = `${history.stateAt(now, windowMs)} ${isGone}`;
    if (state === this.#chart) return;
    this.#chart = state;
    // Of one that is gone nothing is taken to be as it was.
    const { cpu, memory } = history.paths(now, windowMs, isGone ? -Infinity : lateAfterMs(metrics), CHART_WIDTH);
    cpuLine.setAttribute("d", cpu);
    memoryLine.setAttribute("d", memory);
  }
}

/** One task of a row. */
class TaskLine {
  element = copy("task").firstElementChild;
  #parts;
  #last = null;

  constructor() {
    const part = (selector) => this.element.querySelector(selector);
    this.#parts = { what: part(".what"), type: part(".type"), id: part(".task-id"), workspace: part(".workspace"), age: part(".age") };
  }

  show(task, isLongest) {
    const { what, type, id, workspace } = this.#parts;
    this.element.classList.toggle("longest", isLongest);
    const { task_type: kind, task_id: taskId, workspace_id: place } = task;
    const same = this.#last;
    this.#last = task;
    if (same?.task_id === taskId && same.task_type === kind && same.workspace_id === place) return;
    setText(type, kind);
    setText(id, `#${taskId}`);
    setText(workspace, place);
    what.title = `${kind} #${taskId} ${place}`;
  }

  tick(task, until) {
    const running = ageMs(task.started_at, until);
    setText(this.#parts.age, running === null ? "" : span(running));
  }
}
