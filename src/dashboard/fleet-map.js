// A pool at a glance: one cell an agent, coloured and shaped by the kind of its state, filled by its
// load, with a short pulse on a heartbeat. Draws what it is given and knows no feed.

import { CellCanvas } from "./map-canvas.js";
import { CellCursor } from "./map-cursor.js";
import { LARGEST_CELL, MAP_HEIGHT, packCells, snapToPixels } from "./map-layout.js";
import { CellLinks } from "./map-links.js";
import { setShown, setText } from "./parts.js";

export { drawCells, forgetCells, stateBar } from "./map-strip.js";

/** Up to so many cells, each is a link; above, one link goes from cell to cell. */
export const MOST_LINKS = 400;

/** Between a cell and its details, in CSS pixels. */
const DETAIL_GAP = 6;

/** Where keys go from `index` in a map of so many `columns`. */
const MOVES = {
  ArrowLeft: (index) => index - 1,
  ArrowRight: (index) => index + 1,
  ArrowUp: (index, columns) => index - columns,
  ArrowDown: (index, columns) => index + columns,
  Home: () => 0,
  End: (index, columns, count) => count - 1,
};

/**
 * Fills `place`. `label` names the map; `hrefOf(id)` is an agent's address; `hint` is the id of the
 * element that says the same in words; `height`, in CSS pixels, is kept to where possible, `largest`
 * is the largest cell, and with `isHeat` load is strength of colour, whatever the size.
 *
 * A cell is `{id, name, kind, load, words}`: `kind` one of `KINDS` (map-paint.js), `load` 0 to 100 or
 * null, `words` the details as a text, or a function that makes it: it is called for the one cell that
 * someone looks at.
 */
export class FleetMap {
  #place;
  #hrefOf;
  #height;
  #largest;
  #isHeat;
  #cells = [];
  #indices = new Map();
  #canvas;
  /** Links, or one: `CellLinks` or `CellCursor`. */
  #links = null;
  #layout = null;
  #width = 0;
  /** Device pixels of a CSS pixel: another screen has others, at the same width. */
  #ratio = 0;
  /** The tab stop, and the cell whose details are shown: -1 for none. */
  #active = 0;
  #detailed = -1;
  #detail = document.createElement("div");
  #ends = new AbortController();
  #sizes = new ResizeObserver(() => this.#resize());
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(place, { label, hrefOf, hint = null, height = MAP_HEIGHT, largest = LARGEST_CELL, isHeat = false }) {
    this.#place = place;
    this.#hrefOf = hrefOf;
    this.#height = height;
    this.#largest = largest;
    this.#isHeat = isHeat;
    this.#canvas = new CellCanvas(isHeat);
    place.classList.add("fleet-map");
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", label);
    if (hint !== null) place.setAttribute("aria-describedby", hint);
    this.#detail.className = "cell-detail";
    this.#detail.setAttribute("aria-hidden", "true");
    this.#detail.append(document.createElement("bdi"), document.createElement("span"));
    this.#detail.hidden = true;
    place.replaceChildren(this.#canvas.element, this.#detail);
    this.#listen();
    this.#sizes.observe(place);
  }

  /** Shows `cells`, in their order; those whose ids are in `beats` pulse. */
  show(cells, { beats = [] } = {}) {
    const isSame = cells.length === this.#cells.length && cells.every(({ id, name }, index) => id === this.#cells[index].id && name === this.#cells[index].name);
    if (isSame) {
      cells.forEach((cell, index) => this.#paint(index, cell));
      this.#cells = [...cells];
      if (this.#ratio !== globalThis.devicePixelRatio) this.#resize(true);
    } else {
      this.#build([...cells]);
    }
    this.#pulse(beats);
    this.#showDetail();
  }

  /** Shows those of `cells` that are on the map already: what `show` does for all, at less cost. */
  change(cells, { beats = [] } = {}) {
    for (const cell of cells) {
      const index = this.#indices.get(cell.id);
      if (index === undefined) continue;
      this.#cells[index] = cell;
      this.#paint(index, cell);
    }
    this.#pulse(beats);
    this.#showDetail();
  }

  /** Another height to keep to. */
  resize(height, largest = this.#largest) {
    this.#height = height;
    this.#largest = largest;
    this.#resize(true);
  }

  stop() {
    this.#ends.abort();
    this.#sizes.disconnect();
    this.#canvas.stop();
  }

  #listen() {
    const { signal } = this.#ends;
    const on = (type, action) => this.#place.addEventListener(type, action, { signal });
    const point = ({ clientX, clientY }) => this.#look(this.#canvas.indexAt(clientX, clientY));
    on("pointermove", (event) => event.pointerType !== "touch" && point(event));
    on("pointerdown", (event) => event.pointerType === "touch" && point(event));
    on("pointerleave", () => this.#look(this.#hasFocus ? this.#active : -1));
    on("focusin", ({ target }) => {
      const index = this.#indices.get(target.dataset.agent);
      if (index !== undefined) this.#look(index);
    });
    on("focusout", () => this.#look(-1));
    on("keydown", (event) => this.#key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#canvas.recolour(), { signal });
  }

  get #hasFocus() {
    return this.#place.contains(document.activeElement);
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape" && this.#detailed >= 0) {
      event.stopPropagation();
      this.#look(-1);
      return;
    }
    if (!Object.hasOwn(MOVES, event.key)) return;
    event.preventDefault();
    const index = MOVES[event.key](this.#active, this.#layout.columns, this.#cells.length);
    if (index < 0 || index >= this.#cells.length) return;
    this.#activate(index);
    this.#focus(index);
    this.#look(index, true);
  }

  /** Other agents, or in another order. What was active stays so, if it is there. */
  #build(cells) {
    const hadFocus = this.#hasFocus;
    const before = this.#active;
    const activeId = this.#cells[before]?.id;
    const detailedId = this.#cells[this.#detailed]?.id;
    this.#cells = cells;
    this.#indices = new Map(cells.map(({ id }, index) => [id, index]));
    const Links = this.#isHeat || cells.length > MOST_LINKS ? CellCursor : CellLinks;
    if (!(this.#links instanceof Links)) {
      this.#links?.element.remove();
      this.#links = new Links(this.#hrefOf);
      this.#canvas.element.after(this.#links.element);
    }
    this.#canvas.build(cells);
    this.#links.build(cells);
    this.#active = -1;
    this.#resize(true);
    this.#detailed = this.#indices.get(detailedId) ?? -1;
    if (cells.length === 0) return;
    this.#activate(this.#indices.get(activeId) ?? Math.min(Math.max(before, 0), cells.length - 1), before);
    if (hadFocus) this.#focus(this.#active);
  }

  #resize(isNew = false) {
    const width = this.#place.clientWidth;
    if (this.#links === null || width === 0 || (width === this.#width && !isNew)) return;
    this.#width = width;
    this.#ratio = globalThis.devicePixelRatio;
    this.#layout = snapToPixels(packCells(width, this.#height, this.#cells.length, this.#largest), this.#ratio);
    this.#canvas.place(this.#layout, this.#ratio);
    this.#links.place(this.#layout);
    if (this.#active >= 0 && this.#cells.length > 0) this.#links.activate(this.#active, this.#active);
    this.#showDetail();
  }

  #paint(index, cell) {
    this.#canvas.paint(index, cell);
    this.#links.mark(index, cell.kind);
  }

  #focus(index) {
    this.#links.elementAt(index).focus({ preventScroll: true });
  }

  #activate(index, before = this.#active) {
    this.#active = index;
    if (this.#layout !== null) this.#links.activate(index, before);
  }

  #pulse(beats) {
    if (this.#calm.matches) return;
    const indices = [];
    for (const id of beats) {
      const index = this.#indices.get(id);
      if (index !== undefined) indices.push(index);
    }
    if (indices.length > 0) this.#canvas.pulse(indices);
  }

  /** Shows the details of the cell at `index`; -1 for none. `isMoved` by a key: say so. */
  #look(index, isMoved = false) {
    if (index === this.#detailed && !isMoved) return;
    const before = this.#cells[this.#detailed];
    if (before !== undefined && index !== this.#detailed) this.#links.describe(this.#detailed, before.name);
    this.#detailed = index;
    if (index >= 0) this.#activate(index);
    this.#showDetail(isMoved);
  }

  #showDetail(isMoved = false) {
    const cell = this.#cells[this.#detailed];
    setShown(this.#detail, cell !== undefined);
    if (cell === undefined) return;
    const words = typeof cell.words === "function" ? cell.words() : cell.words;
    const [name, text] = this.#detail.children;
    setText(name, cell.name);
    setText(text, words);
    this.#links.describe(this.#detailed, `${cell.name}: ${words}`, isMoved);
    const { offsetLeft, offsetTop, offsetHeight } = this.#links.elementAt(this.#detailed);
    const left = Math.max(0, Math.min(offsetLeft, this.#place.clientWidth - this.#detail.offsetWidth));
    this.#detail.style.setProperty("left", `${left}px`);
    this.#detail.style.setProperty("top", `${offsetTop + offsetHeight + DETAIL_GAP}px`);
  }
}
