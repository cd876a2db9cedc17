// Pools on a wall screen, to be read from afar: no controls, no scrolling, everything as large as the
// screen and the number of agents allow.

import { poolHref } from "./address.js";
import { splitScreen } from "./map-layout.js";
import { PoolFeed } from "./metrics-client.js";
import { copy, setShown, setText } from "./parts.js";
import { say } from "./text.js";
import { WallPanel } from "./wall-panel.js";

/** Pools on one wall: more could not be read. The address chooses others. */
export const MAX_WALL_POOLS = 12;
/** A wall is looked at now and then: figures once a second are enough. */
const BATCH_MS = 1_000;
/** The picture moves a little now and then, so that no screen keeps it: this often, and so far. */
const SHIFT_MS = 60_000;
const SHIFTS = ["0 0", "2px 1px", "1px 3px", "-1px 2px", "-2px 0", "0 -1px"];

/** The view of a wall screen; its interface is in app.js. */
export class WallPage {
  feeds;
  heading;
  crumbs;
  #panels;
  #place;
  #grid;
  #clock;
  #ramp;

  constructor(place, { pools, view, schedule }) {
    const shown = pools.slice(0, MAX_WALL_POOLS);
    const isSingle = pools.length === 1;
    place.replaceChildren(copy("wall-page"));
    this.#place = place;
    this.heading = isSingle ? pools[0].name : say.pools;
    this.crumbs = isSingle ? [[pools[0].name, poolHref(pools[0].pool_id)], [say.wall, null]] : [[say.wall, null]];
    this.feeds = shown.map((pool) => new PoolFeed({ poolId: pool.pool_id, batchMs: BATCH_MS }));
    this.#panels = shown.map((pool, index) => new WallPanel(pool, this.feeds[index], schedule));
    this.#grid = place.querySelector(".wall-panels");
    this.#grid.append(...this.#panels.map(({ element }) => element));
    this.feeds.forEach((feed, index) => feed.addEventListener("change", ({ detail }) => this.#panels[index].note(detail)));
    const more = place.querySelector(".wall-more");
    const missing = (view.poolIds ?? []).filter((id) => !pools.some((pool) => pool.pool_id === id));
    const notes = [];
    if (shown.length < pools.length) notes.push(say.wallMore(shown.length, pools.length));
    if (missing.length > 0) notes.push(say.noSuchPool(missing.join(", ")));
    setShown(more, notes.length > 0);
    setText(more, notes.join(" "));
    this.#clock = place.querySelector(".wall-clock");
    this.#ramp = place.querySelector(".wall-ramp");
    const exit = place.querySelector(".wall-exit");
    exit.href = isSingle ? poolHref(pools[0].pool_id) : "/";
    addEventListener("resize", () => this.#split());
    document.addEventListener("keydown", (event) => leaveBy(event, exit));
  }

  start() {
    this.#split();
    this.tick();
    for (const feed of this.feeds) feed.start();
  }

  draw() {
    for (const panel of this.#panels) panel.draw();
    setShown(this.#ramp, this.#panels.some((panel) => panel.isHeat));
  }

  tick() {
    setText(this.#clock, new Date().toLocaleTimeString(navigator.languages, { timeStyle: "medium" }));
    const shift = SHIFTS[Math.floor(Date.now() / SHIFT_MS) % SHIFTS.length];
    this.#place.style.setProperty("translate", shift);
    for (const panel of this.#panels) panel.tick();
  }

  summary() {
    const summaries = this.#panels.map((panel) => panel.summary()).filter((summary) => summary !== null);
    if (summaries.length === 0) return null;
    const sum = (member) => summaries.reduce((total, summary) => total + summary[member], 0);
    const attention = sum("attention");
    return {
      words: attention > 0 ? say.state(attention, "attention") : null,
      trouble: attention > 0,
      unheard: sum("unheard"),
    };
  }

  #split() {
    const { columns, rows } = splitScreen(innerWidth, innerHeight, this.#panels.length);
    this.#grid.style.setProperty("grid-template-columns", `repeat(${columns}, minmax(0, 1fr))`);
    this.#grid.style.setProperty("grid-template-rows", `repeat(${rows}, minmax(0, 1fr))`);
    // The last one takes what its row has left.
    const last = this.#panels.length - 1;
    this.#panels[last].element.style.setProperty("grid-column", `${(last % columns) + 1} / -1`);
  }
}

/** Escape and `w` lead back, unless something else takes them. */
function leaveBy(event, exit) {
  if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key !== "Escape" && event.key !== "w") return;
  if (event.target.closest?.("input, select, textarea") !== null) return;
  // Escape would also stop the loading of what is led to.
  event.preventDefault();
  exit.click();
}
