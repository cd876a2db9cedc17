// A pool's agents, as the view wants them: which, in which order, as a table or a grid. Rows live
// as long as their agents and are updated in place; only those in sight are drawn, so that a pool
// of thousands costs little more than a screenful.

import { HISTORY_MS } from "./history.js";
import { AgentRow } from "./agent-row.js";
import { copy, setShown } from "./parts.js";
import { isRestless, isShown, orderOf } from "./view.js";

/** Rows this far outside the window are drawn ahead of the scroll, in pixels. */
const SIGHT_MARGIN = 600;
/** Rows that heartbeats move do so this often at most: a list that jumps cannot be read. */
const SETTLE_MS = 2_000;
/** Putting rows in order may take this part of the time: large pools are ordered less often. */
const ORDER_SHARE = 0.1;
/** A chart spans at least this much. */
const SHORTEST_WINDOW_MS = 60_000;
/** Changes noted without a frame, should a browser give none; beyond it all is looked at anew. */
const MOST_CHANGED = 20_000;

const names = new Intl.Collator(undefined, { numeric: true });

/** The agents of `feed`, put into `place`, as `toolbar` says. */
export class AgentList {
  #feed;
  #toolbar;
  #table;
  #body;
  #nothing;
  #rows = new Map();
  #order = [];
  #changed = null;
  #inSight = new Set();
  #lookPending = false;
  #openedAt = null;
  /** Whether a name is new or gone, or the view another: what can't wait, and what can. */
  #unordered = true;
  #unsettled = false;
  #orderedAt = -Infinity;
  #orderCost = 0;
  #retry = null;
  #schedule;
  #isSeen;

  /** `isSeen` tells of a loss whether it was marked; `schedule` asks for a `draw` in the next frame. */
  constructor(place, toolbar, feed, isSeen, schedule) {
    this.#feed = feed;
    this.#toolbar = toolbar;
    this.#isSeen = isSeen;
    this.#schedule = schedule;
    place.replaceChildren(copy("agent-table"));
    this.#table = place.querySelector(".agents");
    this.#body = place.querySelector(".body");
    this.#nothing = place.querySelector("#nothing");
    this.#table.hidden = true;
    toolbar.addEventListener("change", () => this.#viewChanged());
    for (const button of place.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => toolbar.sortBy(button.dataset.sort));
    }
    place.querySelector("#clear").addEventListener("click", () => toolbar.clear());
    addEventListener("scroll", () => this.#lookSoon(), { passive: true });
    addEventListener("resize", () => this.#lookSoon());
    this.#drawView();
  }

  /** Takes note of a change of the feed (its event's `detail`); `draw` shows it. */
  note({ kind, agentId }) {
    this.#openedAt ??= this.#feed.serverNow();
    if (kind === "snapshot" || this.#changed?.size >= MOST_CHANGED) this.#changed = null;
    else this.#changed?.add(agentId);
    // A hidden page has no frames, but its charts go on.
    if (document.hidden) this.#takeChanges();
  }

  /** Losses were marked as seen. */
  judgeAnew() {
    this.#unordered = true;
  }

  /** `compact` or `roomy`. */
  setDensity(density) {
    this.#table.dataset.density = density;
  }

  /** Shows what was noted. For an animation frame. */
  draw() {
    const { agents, departed, unheard } = this.#feed;
    this.#takeChanges();
    const times = this.#times();
    for (const row of this.#inSight) if (row.isStale) row.draw(times);
    if (this.#unordered || this.#unsettled) this.#orderInTime();
    const total = agents.size + departed.size + unheard.size;
    setShown(this.#table, this.#order.length > 0);
    setShown(this.#nothing, total > 0 && this.#order.length === 0 && !this.#unordered);
  }

  /** Moves the ages on. For once a second. */
  tick() {
    if (isRestless(this.#toolbar.view)) this.#unsettled = true;
    if (this.#unsettled) this.#schedule();
    this.#look();
    const times = this.#times();
    for (const row of this.#inSight) row.tick(times);
  }

  #takeChanges() {
    if (this.#changed === null) this.#takeAll();
    else for (const agentId of this.#changed) this.#take(agentId);
    this.#changed = new Set();
    const { agents, departed, unheard } = this.#feed;
    // The feed forgets old departures without a word.
    if (this.#rows.size > agents.size + departed.size + unheard.size) this.#sweep();
  }

  #viewChanged() {
    this.#drawView();
    this.#unordered = true;
    this.#orderCost = 0;
    this.#schedule();
  }

  #drawView() {
    const { view } = this.#toolbar;
    this.#table.dataset.view = view.layout;
    for (const button of this.#table.querySelectorAll("[data-sort]")) {
      const sorted = button.dataset.sort === view.sort ? (view.descending ? "descending" : "ascending") : "none";
      button.parentElement.setAttribute("aria-sort", sorted);
    }
  }

  /** Rows of agents that stay are kept; the rest come, or are swept. */
  #takeAll() {
    const { agents, departed, unheard } = this.#feed;
    for (const { last, since } of unheard.values()) this.#row(last).take(last, since);
    for (const metrics of [...departed.values(), ...agents.values()]) this.#row(metrics).take(metrics);
    this.#unordered = true;
  }

  /** Brings one row up to date. */
  #take(agentId) {
    const metrics = this.#feed.agents.get(agentId) ?? this.#feed.departed.get(agentId);
    if (metrics === undefined) return;
    const row = this.#row(metrics);
    const before = row.trouble;
    if (row.take(metrics)) this.#unordered = true;
    row.judge(this.#feed.heardAt(), this.#isSeen);
    // Who leaves or returns is shown, hidden or moved at once; mere figures may wait.
    if (before !== row.trouble) this.#unordered = true;
    if (isRestless(this.#toolbar.view)) this.#unsettled = true;
  }

  #row(metrics) {
    let row = this.#rows.get(metrics.agent_id);
    if (row === undefined) {
      row = new AgentRow(metrics);
      this.#rows.set(metrics.agent_id, row);
    }
    return row;
  }

  /** Removes the rows of agents that the feed holds no more. */
  #sweep() {
    const { agents, departed, unheard } = this.#feed;
    for (const [agentId, row] of this.#rows) {
      if (agents.has(agentId) || departed.has(agentId) || unheard.has(agentId)) continue;
      this.#inSight.delete(row);
      row.element.remove();
      this.#rows.delete(agentId);
    }
    this.#order = this.#order.filter((row) => this.#rows.get(row.agentId) === row);
    this.#unordered = true;
  }

  /** Orders the rows now, or when it is time. */
  #orderInTime() {
    const rest = Math.max(this.#orderCost / ORDER_SHARE, this.#unordered ? 0 : SETTLE_MS);
    const now = performance.now();
    const wait = this.#orderedAt + rest - now;
    if (wait > 0) {
      this.#retry ??= setTimeout(() => {
        this.#retry = null;
        this.#schedule();
      }, wait);
      return;
    }
    this.#orderRows();
    this.#orderedAt = performance.now();
    this.#orderCost = this.#orderedAt - now;
  }

  #orderRows() {
    if (this.#unordered) {
      [...this.#rows.values()].sort(byName).forEach((row, rank) => (row.rank = rank));
    }
    const { view } = this.#toolbar;
    const heardAt = this.#feed.heardAt();
    const shown = [];
    for (const row of this.#rows.values()) {
      row.judge(heardAt, this.#isSeen);
      if (isShown(view, row)) shown.push(row);
      else row.element.remove();
    }
    this.#order = shown.sort(orderOf(view));
    this.#unordered = false;
    this.#unsettled = false;
    this.#placeRows();
    this.#toolbar.count(shown.length, this.#rows.size);
    setShown(this.#table, shown.length > 0);
    this.#look();
  }

  /** Puts the elements into the order of the rows, moving as few as a single pass can. */
  #placeRows() {
    const focused = this.#body.contains(document.activeElement) ? document.activeElement : null;
    let next = this.#body.firstElementChild;
    for (const { element } of this.#order) {
      if (element === next) {
        next = next.nextElementSibling;
      } else if (element === next?.nextElementSibling) {
        // One row went further down: moving it is less than moving all that it stood before.
        this.#body.append(next);
        next = element.nextElementSibling;
      } else {
        this.#body.insertBefore(element, next);
      }
    }
    // An element that is moved loses the keyboard's focus.
    if (focused !== null && document.activeElement !== focused) focused.focus({ preventScroll: true });
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
   * Finds the rows in sight by halving, draws those that came into it and gives up those that
   * left. An observer of every row would cost its time at every frame.
   */
  #look() {
    const inSight = new Set();
    const bottom = window.innerHeight + SIGHT_MARGIN;
    const box = (index) => this.#order[index].element.getBoundingClientRect();
    const first = firstWhere(this.#order.length, (index) => box(index).bottom > -SIGHT_MARGIN);
    for (let index = first; index < this.#order.length && box(index).top < bottom; index += 1) {
      inSight.add(this.#order[index]);
    }
    const before = this.#inSight;
    this.#inSight = inSight;
    for (const row of before) if (!inSight.has(row)) row.release();
    const times = this.#times();
    for (const row of inSight) if (!before.has(row)) row.draw(times);
  }

  /** What rows are drawn by. Charts go back to when the page was opened, or as far as is kept. */
  #times() {
    const now = this.#feed.asOf();
    const windowMs = Math.min(HISTORY_MS, Math.max(SHORTEST_WINDOW_MS, now - (this.#openedAt ?? now)));
    return { now, heardAt: this.#feed.heardAt(), windowMs, isSeen: this.#isSeen };
  }
}

function byName(a, b) {
  return names.compare(a.name, b.name) || (a.agentId < b.agentId ? -1 : 1);
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
