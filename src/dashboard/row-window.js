// The rows that there are: those in sight and a little beyond, out of a list of any length. Each
// stands where arithmetic says, so that scrolling and sorting touch a screenful of elements at most.

import { AgentRow } from "./agent-row.js";
import { Placing } from "./placing.js";

/** Rows this far outside the window are drawn ahead of the scroll, in pixels. */
const MARGIN = 100;
/**
 * Up to so many agents all have an element with at least their name, so that the browser's own search
 * finds them; of more only those in sight.
 */
const MOST_IN_DOCUMENT = 200;
/** Rows without an agent that are kept for the next. */
const MOST_SPARE = 100;

/** Shows `order`, an array of entries (agent-entry.js), in `body`. */
export class RowWindow {
  #body;
  #poolId;
  #look;
  #arrived;
  #order = [];
  #placing = null;
  #width = null;
  /** Entries that have a row, in their order, and those of them that are drawn. */
  #present = [];
  #inSight = [];
  #spare = [];
  #mostTasks = 1;
  #hasCharts = false;
  #lookPending = false;

  /**
   * `look` returns what rows are drawn by (see `AgentRow`), but for what the layout decides;
   * `arrived` is called with the entries in sight before others of them are drawn, if there are charts.
   */
  constructor(body, poolId, look, arrived) {
    this.#body = body;
    this.#poolId = poolId;
    this.#look = look;
    this.#arrived = arrived;
    addEventListener("scroll", () => this.#lookSoon(), { passive: true });
    addEventListener("resize", () => this.restyle());
    const observer = new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width === this.#width) return;
      this.#width = contentRect.width;
      this.restyle();
    });
    observer.observe(body);
  }

  /** The entries in sight, if there are charts. */
  get charted() {
    return this.#hasCharts ? this.#inSight : [];
  }

  /** The style sheet says something else now: sizes are read anew. */
  restyle() {
    this.#placing = null;
    this.#lookSoon();
  }

  /** Shows `order` from now on. */
  setOrder(order) {
    this.#order = order;
    this.update();
  }

  /** Draws what is in sight and is old. */
  drawStale() {
    const look = this.#lookNow();
    for (const { row } of this.#inSight) if (row.isStale) row.draw(look);
  }

  /** Moves the ages on. */
  tick() {
    this.update();
    const look = this.#lookNow();
    for (const { row } of this.#inSight) row.tick(look);
  }

  /** Draws the charts of `entries` anew, where they are in sight. */
  drawCharts(entries) {
    const look = this.#lookNow();
    for (const { row } of entries) if (row !== null && this.#inSight.includes(row.entry)) row.tick(look);
  }

  #lookSoon() {
    if (this.#lookPending) return;
    this.#lookPending = true;
    requestAnimationFrame(() => {
      this.#lookPending = false;
      this.update();
    });
  }

  /** Finds what is in sight, gives it rows, and draws those that came. */
  update() {
    // Without a box nothing has a size.
    if (!this.#body.checkVisibility()) return;
    this.#placing ??= this.#measure();
    const count = this.#order.length;
    const top = -this.#body.getBoundingClientRect().top;
    const { from, to } = this.#placing.between(top - MARGIN, top + innerHeight + MARGIN, count);
    const height = `${this.#placing.heightOf(count)}px`;
    if (this.#body.style.height !== height) this.#body.style.height = height;
    const all = count <= MOST_IN_DOCUMENT;
    const inSight = this.#order.slice(from, to);
    this.#populate(all ? this.#order : inSight, all ? 0 : from, new Set(inSight));
    this.#draw(inSight);
  }

  /** Sizes as the style sheet has them: the tracks of the grid that `body` is, though its rows float. */
  #measure() {
    const style = getComputedStyle(this.#body);
    const widths = style.gridTemplateColumns.split(" ").map(parseFloat);
    const [height, gapX, gapY] = [style.gridAutoRows, style.columnGap, style.rowGap].map((size) => parseFloat(size) || 0);
    this.#mostTasks = Number(style.getPropertyValue("--most-tasks"));
    this.#hasCharts = style.getPropertyValue("--has-charts").trim() === "1";
    this.#body.style.setProperty("--width", `${widths[0]}px`);
    // What is drawn was drawn for another layout.
    this.#inSight = [];
    return new Placing({ columns: widths.length, width: widths[0], height, gapX, gapY });
  }

  /** Gives each of `entries`, which begin with number `first`, its row, in order, and takes others' away. */
  #populate(entries, first, inSight) {
    const focused = this.#body.contains(document.activeElement) ? document.activeElement : null;
    const wanted = this.#withFocused(entries, first, focused);
    const reused = this.#giveRows(wanted, inSight);
    let next = this.#body.firstElementChild;
    for (const { entry, index } of wanted) {
      const { row } = entry;
      const { element } = row;
      row.place(this.#placing.at(index), index);
      // A row that shows another agent now comes to its place later: those that stay do not move for it.
      while (next !== null && next !== element && reused.delete(next)) {
        const following = next.nextElementSibling;
        this.#body.append(next);
        next = following;
      }
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
    this.#present = wanted.map(({ entry }) => entry);
    // An element that is moved loses the keyboard's focus.
    if (focused !== null && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  /** Those that come take the rows of those that leave, where these are; returns the elements of such. */
  #giveRows(wanted, inSight) {
    const stays = new Set(wanted.map(({ entry }) => entry));
    const left = [];
    for (const entry of this.#present) {
      if (stays.has(entry)) continue;
      left.push(entry.row);
      entry.row = null;
    }
    const reused = new Set();
    let taken = 0;
    for (const { entry } of wanted) {
      if (entry.row !== null) continue;
      // What is not drawn at once must not show what it showed before.
      const isDrawn = inSight.has(entry);
      if (isDrawn && taken < left.length) {
        reused.add(left[taken].element);
        left[taken].show(entry);
        taken += 1;
      } else {
        const row = (isDrawn ? this.#spare.pop() : undefined) ?? new AgentRow(this.#poolId);
        row.show(entry);
      }
    }
    for (const row of left.slice(taken)) {
      row.element.remove();
      row.entry = null;
      if (this.#spare.length < MOST_SPARE) this.#spare.push(row);
    }
    return reused;
  }

  /** The row that has the keyboard's focus stays, out of sight too. */
  #withFocused(entries, first, focused) {
    const wanted = entries.map((entry, offset) => ({ entry, index: first + offset }));
    if (focused === null) return wanted;
    const entry = this.#present.find(({ row }) => row.element.contains(focused));
    const index = entry === undefined ? -1 : this.#order.indexOf(entry);
    if (index < 0 || (index >= first && index < first + entries.length)) return wanted;
    if (index < first) wanted.unshift({ entry, index });
    else wanted.push({ entry, index });
    return wanted;
  }

  #draw(inSight) {
    const before = new Set(this.#inSight);
    const now = new Set(inSight);
    for (const { row } of before) {
      const isLeft = row !== null && !now.has(row.entry);
      if (isLeft && !row.element.contains(document.activeElement)) row.release();
    }
    this.#inSight = inSight;
    const arrived = inSight.filter((entry) => !before.has(entry));
    if (arrived.length === 0) return;
    // A row that showed another agent has its chart still: each needs its own history, if an empty one.
    if (this.#hasCharts) this.#arrived(inSight);
    const look = this.#lookNow();
    for (const { row } of arrived) row.draw(look);
  }

  #lookNow() {
    const { windowMs, ...rest } = this.#look();
    return { ...rest, windowMs: this.#hasCharts ? windowMs : null, mostTasks: this.#mostTasks };
  }
}
