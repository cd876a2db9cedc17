// One agent on the page, as a row of the table or a card of the grid. Always there with its name,
// so that the browser's own search finds it; the rest is made when it comes into sight and given
// up when it leaves. Knows nothing of the other agents.

import { ageMs, byAge, isLate, judge, lateAfterMs } from "./health.js";
import { History } from "./history.js";
import { copy, fillList, Meter, setShown, setText } from "./parts.js";
import { clockTime, say, span } from "./text.js";

/** Tasks shown before "more" is pressed. */
const TASKS_AT_FIRST = 3;
/** The width of a chart's box; its height is 100. The page stretches it. */
const CHART_WIDTH = 300;

/** `take` keeps a state, `draw` shows it, `tick` moves its ages on. */
export class AgentRow {
  element;
  agentId;
  name = null;
  /** What view.js sorts and filters by; `rank` is the list's to set. */
  rank = 0;
  kind = "";
  state = "";
  high = false;
  trouble = 0;
  lost = false;
  cpu = null;
  memory = null;
  tasks = 0;
  heard = null;

  #metrics;
  #unheardSince = null;
  #history = new History();
  #drawn = null;
  #now = null;
  #byAge = [];
  #allTasks = false;
  #parts = null;
  #cpuMeter;
  #memoryMeter;

  constructor(metrics) {
    this.agentId = metrics.agent_id;
    this.element = copy("agent-row").firstElementChild;
    this.element.dataset.agent = this.agentId;
  }

  /**
   * Keeps `metrics`, an agent or a departure of the feed; true when the name is another. Of a live
   * agent that was not heard since the server restarted, `unheardSince` is the time of that.
   */
  take(metrics, unheardSince = null) {
    this.#metrics = metrics;
    const departed = this.#departed;
    if (departed) unheardSince = null;
    if (this.#unheardSince !== unheardSince) this.#drawn = null;
    this.#unheardSince = unheardSince;
    const gone = this.#gone;
    this.heard = Date.parse(metrics.last_update_time ?? metrics.at);
    if (Number.isNaN(this.heard)) this.heard = null;
    this.tasks = metrics.running_tasks?.length ?? 0;
    this.lost = departed && metrics.reason === "timeout";
    this.cpu = gone ? null : metrics.cpu_usage;
    this.memory = gone ? null : metrics.memory_usage;
    if (!gone) this.#history.add(this.heard, this.cpu, this.memory);
    if (this.element.classList.contains("departed") !== gone) this.element.classList.toggle("departed", gone);
    if (this.name === metrics.agent_name) return false;
    this.name = metrics.agent_name;
    const [name, id] = this.element.firstElementChild.children;
    setText(name, this.name);
    name.title = this.name;
    setText(id, this.name === this.agentId ? "" : this.agentId);
    return true;
  }

  /** Settles `state` and `trouble` as of `heardAt`, the feed's last message: lateness comes with time alone. */
  judge(heardAt, isSeen) {
    const { kind, state, high, trouble } = judge(this.#metrics, heardAt, this.#unheardSince, isSeen);
    this.kind = kind;
    this.state = state;
    this.high = high;
    this.trouble = trouble;
  }

  /** What a filter's text is looked for in. */
  words() {
    const tasks = this.#metrics.running_tasks ?? [];
    const parts = tasks.map((task) => `${task.task_type} #${task.task_id} ${task.workspace_id}`);
    return [this.name, this.agentId, ...parts].join("\n");
  }

  /** Whether something was taken that `draw` has not shown. */
  get isStale() {
    return this.#drawn !== this.#metrics;
  }

  /** Shows what was taken. `times` as for `tick`. */
  draw(times) {
    if (this.#parts === null) this.#fill();
    const metrics = this.#metrics;
    if (this.isStale) {
      this.#drawn = metrics;
      this.element.classList.toggle("lost", this.lost && this.tasks > 0);
      const [badge, kind, reason] = this.#stateWords();
      setText(this.#parts.badge, badge);
      setText(this.#parts.reason, reason);
      this.#parts.badge.dataset.kind = kind;
      this.#cpuMeter.show(this.cpu);
      this.#memoryMeter.show(this.memory);
      this.#byAge = byAge(metrics.running_tasks ?? []);
      this.#drawTasks();
    }
    this.tick(times);
  }

  /**
   * Moves ages and chart on to `now`, and lateness to `heardAt`; the chart spans the last
   * `windowMs`. For a row that is drawn.
   */
  tick({ now, heardAt, windowMs, isSeen }) {
    this.#now = now;
    this.judge(heardAt, isSeen);
    const { heard, late } = this.#parts;
    const time = this.#metrics.last_update_time ?? this.#metrics.at;
    const age = ageMs(time, now);
    // A departure's time is when the server gave it up, up to `evict_after` past its last word.
    const since = this.#departed ? say.goneFor : this.#gone ? say.heardAgo : say.ago;
    setText(heard, age === null ? say.unknown : since(age));
    if (heard.dateTime !== time) heard.dateTime = time;
    setShown(late, this.state === "late");
    const overdue = this.#unheardSince === null ? this.state === "late" : isLate(this.#metrics, heardAt, this.#unheardSince);
    this.element.classList.toggle("overdue", overdue);
    this.#tickTasks();
    this.#drawChart(windowMs);
  }

  /** Gives up all but the name. A row that holds the keyboard's focus keeps it. */
  release() {
    if (this.#parts === null || this.element.contains(document.activeElement)) return;
    while (this.element.childElementCount > 1) this.element.lastElementChild.remove();
    this.#parts = null;
    this.#drawn = null;
  }

  get #departed() {
    return this.#metrics.last_update_time === undefined;
  }

  /** Whether what is shown is only what was known last. */
  get #gone() {
    return this.#departed || this.#unheardSince !== null;
  }

  /** The badge's text and kind, and the words beside it. */
  #stateWords() {
    const { reason, status } = this.#metrics;
    if (this.#departed) return [say.offlineBadge, "offline", say.reason(reason)];
    if (this.#gone) return [say.unheardBadge, "unheard", say.unheardSince(clockTime(this.#unheardSince))];
    return [say.status(status), status, ""];
  }

  /** Makes the cells beside the name. */
  #fill() {
    this.element.append(copy("agent-cells"));
    const part = (selector) => this.element.querySelector(selector);
    this.#parts = {
      badge: part(".badge"),
      late: part(".late"),
      reason: part(".reason"),
      noTask: part(".none"),
      tasks: part(".tasks ul"),
      more: part(".more"),
      heard: part("time"),
      chart: part(".chart svg"),
      title: part(".chart title"),
      cpuLine: part(".chart .line.cpu"),
      memoryLine: part(".chart .line.memory"),
    };
    this.#cpuMeter = new Meter(part(".load.cpu"), say.cpu);
    this.#memoryMeter = new Meter(part(".load.memory"), say.memory);
    setText(this.#parts.late, say.lateBadge);
    this.#parts.more.addEventListener("click", () => {
      this.#allTasks = !this.#allTasks;
      this.#drawTasks();
      this.#tickTasks();
    });
  }

  #drawTasks() {
    const { tasks, more, noTask } = this.#parts;
    const shown = this.#allTasks ? this.#byAge : this.#byAge.slice(0, TASKS_AT_FIRST);
    setShown(noTask, this.tasks === 0 || this.#gone);
    setText(noTask, this.#gone ? say.lastHeld(this.tasks) : say.noTask);
    fillList(tasks, shown, () => copy("task").firstElementChild, (item, task, index) => {
      setText(item.querySelector(".type"), task.task_type);
      setText(item.querySelector(".task-id"), `#${task.task_id}`);
      setText(item.querySelector(".workspace"), task.workspace_id);
      const what = item.querySelector(".what");
      if (what.title !== what.textContent) what.title = what.textContent;
      item.classList.toggle("longest", index === 0 && this.tasks > 1);
    });
    setShown(more, this.tasks > TASKS_AT_FIRST);
    setText(more, this.#allTasks ? say.fewerTasks : say.moreTasks(this.tasks - TASKS_AT_FIRST));
    more.setAttribute("aria-expanded", String(this.#allTasks));
  }

  /** What an agent was running that is gone is as old as it was then. */
  #tickTasks() {
    const until = this.#gone ? this.heard : this.#now;
    const items = this.#parts.tasks.children;
    for (let index = 0; index < items.length; index += 1) {
      const running = ageMs(this.#byAge[index].started_at, until);
      setText(items[index].lastElementChild, running === null ? "" : span(running));
    }
  }

  #drawChart(windowMs) {
    const { cpuLine, memoryLine, title } = this.#parts;
    const gapMs = lateAfterMs(this.#metrics);
    const { cpu, memory } = this.#history.paths(this.#now, windowMs, gapMs, CHART_WIDTH);
    if (cpuLine.getAttribute("d") !== cpu) cpuLine.setAttribute("d", cpu);
    if (memoryLine.getAttribute("d") !== memory) memoryLine.setAttribute("d", memory);
    setText(title, say.trend(windowMs));
  }
}
