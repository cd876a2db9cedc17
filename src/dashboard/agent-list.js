// A pool's agents, as the view wants them: which, in which order, as a table or a grid. Holds an
// entry for each agent; row-window.js has rows for those in sight.

import { AgentEntry } from "./agent-entry.js";
import { copy, setShown } from "./parts.js";
import { RowWindow } from "./row-window.js";
import { Trends } from "./trends.js";
import { isRestless, isShown, orderOf } from "./view.js";

/** Rows that heartbeats move do so this often at most: a list that jumps cannot be read. */
const SETTLE_MS = 2_000;
/** Putting rows in order may take this part of the time: large pools are ordered less often. */
const ORDER_SHARE = 0.1;
/** Changes noted without a frame, should a browser give none; beyond it all is looked at anew. */
const MOST_CHANGED = 20_000;

/** Below this a table has no width for columns: its rows are cards, as in the grid. */
const NARROW = "(width < 900px)";

const names = new Intl.Collator(undefined, { numeric: true });

/** The agents of `feed`, put into `place`, as `toolbar` says. */
export class AgentList {
  #feed;
  #isSeen;
  #toolbar;
  #table;
  #nothing;
  #window;
  #trends;
  #narrow = matchMedia(NARROW);
  /** All entries: by id, and by name. */
  #entries = new Map();
  #byName = [];
  #isNamed = false;
  #order = [];
  #changed = null;
  /** Whether a name is new or gone, or the view another: what can't wait, and what can. */
  #unordered = true;
  #unsettled = false;
  #orderedAt = -Infinity;
  #orderCost = 0;
  #retry = null;
  #schedule;

  /** `isSeen` tells of a loss whether it was marked; `schedule` asks for a `draw` in the next frame. */
  constructor(place, toolbar, feed, isSeen, schedule) {
    this.#feed = feed;
    this.#toolbar = toolbar;
    this.#isSeen = isSeen;
    this.#schedule = schedule;
    place.replaceChildren(copy("agent-table"));
    this.#table = place.querySelector(".agents");
    this.#nothing = place.querySelector("#nothing");
    this.#table.hidden = true;
    this.#trends = new Trends(feed.poolId, (entries) => this.#window.drawCharts(entries));
    this.#window = new RowWindow(
      place.querySelector(".body"),
      feed.poolId,
      () => this.#look(),
      (inSight) => this.#trends.want(inSight),
    );
    toolbar.addEventListener("change", () => this.#viewChanged());
    for (const button of place.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => toolbar.sortBy(button.dataset.sort));
    }
    place.querySelector("#clear").addEventListener("click", () => toolbar.clear());
    this.setDensity("compact");
    this.#drawView();
    this.#narrow.onchange = () => this.#drawView();
    new ResizeObserver(() => this.#stickBelowHeader()).observe(document.querySelector(".top"));
  }

  /** `compact` is one line an agent, `roomy` has its first tasks and a larger chart. */
  setDensity(density) {
    this.#table.dataset.density = density;
    this.#window.restyle();
  }

  /** Takes note of a change of the feed (its event's `detail`); `draw` shows it. */
  note({ kind, agentId, agentIds = [agentId], departedIds = [] }) {
    if (kind === "snapshot" || this.#changed?.size >= MOST_CHANGED) {
      this.#changed = null;
    } else if (this.#changed !== null) {
      for (const id of agentIds) this.#changed.add(id);
      for (const id of departedIds) this.#changed.add(id);
    }
    // A hidden page has no frames, but its charts go on.
    if (document.hidden) this.#takeChanges();
  }

  /** Losses were marked as seen. */
  judgeAnew() {
    this.#unordered = true;
  }

  /** Shows what was noted. For an animation frame. */
  draw() {
    this.#takeChanges();
    this.#window.drawStale();
    if (this.#unordered || this.#unsettled) this.#orderInTime();
    setShown(this.#table, this.#order.length > 0);
    setShown(this.#nothing, this.#entries.size > 0 && this.#order.length === 0 && !this.#unordered);
  }

  /** Moves the ages on. For once a second. */
  tick() {
    if (isRestless(this.#toolbar.view)) this.#unsettled = true;
    if (this.#unsettled) this.#schedule();
    this.#window.tick();
  }

  #takeChanges() {
    if (this.#changed === null) this.#takeAll();
    else for (const agentId of this.#changed) this.#takeOne(agentId);
    this.#changed = new Set();
    const { agents, departed, unheard } = this.#feed;
    // The feed forgets old departures without a word.
    if (this.#entries.size > agents.size + departed.size + unheard.size) this.#sweep();
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
    this.#table.dataset.layout = view.layout === "grid" || this.#narrow.matches ? "cards" : "table";
    for (const button of this.#table.querySelectorAll("[data-sort]")) {
      const sorted = button.dataset.sort === view.sort ? (view.descending ? "descending" : "ascending") : "none";
      button.parentElement.setAttribute("aria-sort", sorted);
    }
    this.#window.restyle();
  }

  /** The page's header has one line or more, as its names have. */
  #stickBelowHeader() {
    const { height } = document.querySelector(".top").getBoundingClientRect();
    document.documentElement.style.setProperty("--top-height", `${height}px`);
  }

  #takeAll() {
    const { agents, departed, unheard } = this.#feed;
    for (const { last, since } of unheard.values()) this.#take(last, since);
    for (const metrics of departed.values()) this.#take(metrics);
    for (const metrics of agents.values()) this.#take(metrics, null, { isSnapshot: true });
    // What came while the page was not connected, the server may remember.
    for (const { history } of this.#entries.values()) if (history !== null) history.isAsked = false;
    this.#trends.want(this.#window.charted);
    this.#unordered = true;
  }

  /** Brings one entry up to date. */
  #takeOne(agentId) {
    const metrics = this.#feed.agents.get(agentId) ?? this.#feed.departed.get(agentId);
    if (metrics === undefined) return;
    const entry = this.#take(metrics);
    const before = entry.trouble;
    entry.judge(this.#feed.heardAt(), this.#isSeen);
    // Who leaves or returns is shown, hidden or moved at once; mere figures may wait.
    if (before !== entry.trouble) this.#unordered = true;
    if (isRestless(this.#toolbar.view)) this.#unsettled = true;
  }

  #take(metrics, unheardSince = null, options = {}) {
    let entry = this.#entries.get(metrics.agent_id);
    if (entry === undefined) {
      entry = new AgentEntry(metrics.agent_id);
      this.#entries.set(metrics.agent_id, entry);
      this.#byName.push(entry);
    }
    if (entry.take(metrics, unheardSince, options)) {
      entry.row?.showName();
      this.#isNamed = false;
      this.#unordered = true;
    }
    entry.row?.showGone();
    return entry;
  }

  /** Removes the entries of agents that the feed holds no more. */
  #sweep() {
    const { agents, departed, unheard } = this.#feed;
    for (const agentId of this.#entries.keys()) {
      if (!agents.has(agentId) && !departed.has(agentId) && !unheard.has(agentId)) this.#entries.delete(agentId);
    }
    const isHeld = (entry) => this.#entries.get(entry.agentId) === entry;
    this.#byName = this.#byName.filter(isHeld);
    this.#order = this.#order.filter(isHeld);
    this.#window.setOrder(this.#order);
    this.#unordered = true;
  }

  /** Orders the entries now, or when it is time. */
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
    this.#orderAll();
    this.#orderedAt = performance.now();
    this.#orderCost = this.#orderedAt - now;
  }

  #orderAll() {
    if (!this.#isNamed) this.#byName.sort(byName).forEach((entry, rank) => (entry.rank = rank));
    this.#isNamed = true;
    const { view } = this.#toolbar;
    const heardAt = this.#feed.heardAt();
    const shown = [];
    let hasDisks = false;
    for (const entry of this.#byName) {
      entry.judge(heardAt, this.#isSeen);
      if (entry.disk !== null) hasDisks = true;
      if (isShown(view, entry)) shown.push(entry);
    }
    this.#order = shown.sort(orderOf(view));
    this.#unordered = false;
    this.#unsettled = false;
    this.#showDisks(hasDisks);
    setShown(this.#table, shown.length > 0);
    // The header is a row too.
    this.#table.ariaRowCount = String(shown.length + 1);
    this.#window.setOrder(shown);
    this.#toolbar.count(shown.length, this.#entries.size);
  }

  /** A column for disks, where someone reports one. */
  #showDisks(hasDisks) {
    if (this.#table.classList.contains("disks") === hasDisks) return;
    this.#table.classList.toggle("disks", hasDisks);
    this.#window.restyle();
  }

  /** What rows are drawn by. */
  #look() {
    const now = this.#feed.asOf();
    return { now, heardAt: this.#feed.heardAt(), isSeen: this.#isSeen, windowMs: this.#trends.windowMs(now) };
  }
}

function byName(a, b) {
  return names.compare(a.name, b.name) || (a.agentId < b.agentId ? -1 : 1);
}
