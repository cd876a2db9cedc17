// A pool's agents, one row each, in the order of their names. Rows live as long as their agents
// and are updated in place; those out of sight have only a name, and are drawn when they come
// into sight, so that a pool of thousands costs little more than a screenful.

import { ageMs, byAge, isLate } from "./health.js";
import { copy, fillList, Meter, setShown, setText } from "./parts.js";
import { agentCommand, curlLine, say, span } from "./text.js";

/** Tasks shown before "more" is pressed. */
const TASKS_AT_FIRST = 3;
/** Rows this far outside the window are drawn ahead of the scroll, in pixels. */
const SIGHT_MARGIN = 600;

const names = new Intl.Collator(undefined, { numeric: true });

/** The table of `feed`, put into `place`. */
export class AgentList {
  #feed;
  #table;
  #body;
  #empty;
  #rows = new Map();
  #order = [];
  #changed = new Set();
  #inSight = new Set();
  #lookPending = false;

  constructor(place, feed, origin) {
    this.#feed = feed;
    place.replaceChildren(copy("agent-table"));
    this.#table = place.querySelector(".agents");
    this.#body = place.querySelector(".body");
    this.#empty = place.querySelector(".empty");
    this.#table.hidden = true;
    setText(place.querySelector(".curl"), curlLine(origin));
    setText(place.querySelector(".agent-command"), agentCommand(origin));
    setText(place.querySelector(".pool-id"), feed.poolId);
    addEventListener("scroll", () => this.#lookSoon(), { passive: true });
    addEventListener("resize", () => this.#lookSoon());
  }

  /** Takes note of a change of the feed (its event's `detail`); `draw` shows it. */
  note({ kind, agentId }) {
    if (kind === "snapshot") this.#changed = null;
    else this.#changed?.add(agentId);
  }

  /** Shows what was noted. For an animation frame. */
  draw() {
    const before = this.#order.length;
    let moved = this.#changed === null;
    if (moved) this.#rebuild();
    else for (const agentId of this.#changed) moved = this.#place(agentId) || moved;
    this.#changed = new Set();
    const { agents, departed } = this.#feed;
    const empty = this.#feed.epoch !== null && agents.size + departed.size === 0;
    setShown(this.#empty, empty);
    setShown(this.#table, this.#rows.size > 0);
    if (moved || this.#order.length !== before) this.#look();
  }

  /** Moves the ages on. For once a second. */
  tick() {
    this.#look();
    const now = this.#feed.asOf();
    for (const row of this.#inSight) row.tick(now);
  }

  #state(agentId) {
    return this.#feed.agents.get(agentId) ?? this.#feed.departed.get(agentId);
  }

  /** Rows of agents that stay are kept; the rest go, come, or move. */
  #rebuild() {
    const { agents, departed } = this.#feed;
    this.#order = [];
    for (const [agentId, row] of this.#rows) {
      if (!agents.has(agentId) && !departed.has(agentId)) this.#remove(agentId, row);
    }
    for (const state of [...departed.values(), ...agents.values()]) this.#row(state).take(state);
    this.#order = [...this.#rows.values()].sort(compare);
    let next = this.#body.firstElementChild;
    for (const row of this.#order) {
      if (row.element === next) next = next.nextElementSibling;
      else this.#body.insertBefore(row.element, next);
    }
    for (const row of this.#inSight) row.draw(this.#feed.asOf());
  }

  /** Brings one row up to date; true when rows came, went or moved. */
  #place(agentId) {
    const state = this.#state(agentId);
    const known = this.#rows.get(agentId);
    if (state === undefined) {
      if (known) this.#remove(agentId, known);
      return known !== undefined;
    }
    const row = this.#row(state);
    const moves = row.take(state);
    if (moves) {
      if (known) this.#order.splice(this.#order.indexOf(row), 1);
      const index = firstAfter(this.#order, row);
      this.#body.insertBefore(row.element, this.#order[index]?.element ?? null);
      this.#order.splice(index, 0, row);
    }
    if (this.#inSight.has(row)) row.draw(this.#feed.asOf());
    return moves;
  }

  #row(state) {
    let row = this.#rows.get(state.agent_id);
    if (row === undefined) {
      row = new Row(state);
      this.#rows.set(state.agent_id, row);
    }
    return row;
  }

  #remove(agentId, row) {
    this.#inSight.delete(row);
    row.element.remove();
    this.#rows.delete(agentId);
    const index = this.#order.indexOf(row);
    if (index >= 0) this.#order.splice(index, 1);
  }

  #lookSoon() {
    if (this.#lookPending) return;
    this.#lookPending = true;
    requestAnimationFrame(() => {
      this.#lookPending = false;
      this.#look();
    });
  }

  /**
   * Finds the rows in sight by halving, and draws those that came into it. An observer of every
   * row would cost its time at every frame.
   */
  #look() {
    const inSight = new Set();
    const bottom = window.innerHeight + SIGHT_MARGIN;
    const box = (index) => this.#order[index].element.getBoundingClientRect();
    const first = firstWhere(this.#order.length, (index) => box(index).bottom > -SIGHT_MARGIN);
    for (let index = first; index < this.#order.length && box(index).top < bottom; index += 1) {
      inSight.add(this.#order[index]);
    }
    const came = [...inSight].filter((row) => !this.#inSight.has(row));
    this.#inSight = inSight;
    for (const row of came) row.draw(this.#feed.asOf());
  }
}

/** One agent's row. `take` keeps a state, `draw` shows it, `tick` moves its ages on. */
class Row {
  element;
  name = null;
  agentId;

  #state;
  #drawn = null;
  #now = null;
  #tasks = [];
  #allTasks = false;
  #parts = null;
  #cpu;
  #memory;

  constructor(state) {
    this.agentId = state.agent_id;
    this.element = copy("agent-row").firstElementChild;
    this.element.dataset.agent = this.agentId;
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
    };
    this.#cpu = new Meter(part(".cpu"), "CPU");
    this.#memory = new Meter(part(".memory"), "Memory");
    setText(this.#parts.late, say.lateBadge);
    this.#parts.more.addEventListener("click", () => {
      this.#allTasks = !this.#allTasks;
      this.#drawTasks();
      this.tick(this.#now);
    });
  }

  /** Keeps `state`; true when the row's place in the order may have changed. */
  take(state) {
    this.#state = state;
    if (this.name === state.agent_name) return false;
    this.name = state.agent_name;
    const [name, id] = this.element.firstElementChild.children;
    setText(name, this.name);
    name.title = this.name;
    setText(id, this.name === this.agentId ? "" : this.agentId);
    return true;
  }

  /** Shows the state as it is now, if it isn't shown yet. */
  draw(now) {
    if (this.#parts === null) this.#fill();
    const state = this.#state;
    if (this.#drawn !== state) {
      this.#drawn = state;
      const departed = this.#departed;
      this.element.classList.toggle("departed", departed);
      const status = departed ? say.offlineBadge : state.status;
      setText(this.#parts.badge, status);
      setText(this.#parts.reason, departed ? say.reason(state.reason) : "");
      this.#parts.badge.dataset.kind = departed ? "offline" : status;
      this.#cpu.show(departed ? null : state.cpu_usage);
      this.#memory.show(departed ? null : state.memory_usage);
      this.#tasks = byAge(state.running_tasks ?? []);
      this.element.classList.toggle("lost", departed && state.reason === "timeout" && this.#tasks.length > 0);
      this.#drawTasks();
    }
    this.tick(now);
  }

  /** Moves the ages on to `now`, the server's time. */
  tick(now) {
    this.#now = now;
    const state = this.#state;
    const { heard, late, tasks } = this.#parts;
    const time = state.last_update_time ?? state.at;
    const age = ageMs(time, now);
    // A departure's time is when the server gave it up, up to `evict_after` past its last word.
    const since = this.#departed ? say.goneFor : say.ago;
    const words = age === null ? say.unknown : since(age);
    setText(heard, words);
    if (heard.dateTime !== time) heard.dateTime = time;
    const isOverdue = !this.#departed && isLate(state, now);
    setShown(late, isOverdue);
    this.element.classList.toggle("overdue", isOverdue);
    // What a departed agent was running is as old as it was then.
    const until = this.#departed ? Date.parse(time) : now;
    for (let index = 0; index < tasks.childElementCount; index += 1) {
      const running = ageMs(this.#tasks[index].started_at, until);
      setText(tasks.children[index].lastElementChild, running === null ? "" : span(running));
    }
  }

  get #departed() {
    return this.#state.last_update_time === undefined;
  }

  #drawTasks() {
    const { tasks, more, noTask } = this.#parts;
    const total = this.#tasks.length;
    const shown = this.#allTasks ? this.#tasks : this.#tasks.slice(0, TASKS_AT_FIRST);
    const departed = this.#departed;
    setShown(noTask, total === 0 || departed);
    setText(noTask, departed ? say.lastHeld(total) : say.noTask);
    fillList(tasks, shown, () => copy("task").firstElementChild, (item, task, index) => {
      setText(item.querySelector(".type"), task.task_type);
      setText(item.querySelector(".task-id"), `#${task.task_id}`);
      setText(item.querySelector(".workspace"), task.workspace_id);
      const what = item.querySelector(".what");
      if (what.title !== what.textContent) what.title = what.textContent;
      item.classList.toggle("longest", index === 0 && total > 1);
    });
    setShown(more, total > TASKS_AT_FIRST);
    setText(more, this.#allTasks ? say.fewerTasks : say.moreTasks(total - TASKS_AT_FIRST));
    more.setAttribute("aria-expanded", String(this.#allTasks));
  }
}

function compare(a, b) {
  return names.compare(a.name, b.name) || (a.agentId < b.agentId ? -1 : 1);
}

/** Where `row` belongs in the sorted `order`. */
function firstAfter(order, row) {
  return firstWhere(order.length, (index) => compare(order[index], row) >= 0);
}

/** The first index under `length` for which `holds`, which holds for all after it too. */
function firstWhere(length, holds) {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
