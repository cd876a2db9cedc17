// The one link of a map of thousands: it lies on the cell that is pointed at or focused, so that all
// that links do works: keys, another tab, the focus ring.

/** What can be pointed at and focused in a `FleetMap` of thousands. */
export class CellCursor {
  element = document.createElement("div");
  #link = document.createElement("a");
  #live = document.createElement("span");
  #hrefOf;
  #cells = [];
  #layout = null;

  constructor(hrefOf) {
    this.#hrefOf = hrefOf;
    this.element.className = "cell-cursor";
    this.#live.className = "unseen";
    this.#live.setAttribute("aria-live", "polite");
    this.element.append(this.#link, this.#live);
  }

  build(cells) {
    this.#cells = cells;
  }

  mark() {}

  place(layout) {
    this.#layout = layout;
    this.#link.style.setProperty("width", `${layout.cell}px`);
    this.#link.style.setProperty("height", `${layout.cell}px`);
  }

  /** Moves the link to the cell at `index`. */
  activate(index) {
    const { id, name } = this.#cells[index];
    this.#link.dataset.agent = id;
    this.#link.href = this.#hrefOf(id);
    this.#link.setAttribute("aria-label", name);
    const { columns, cell, gap } = this.#layout;
    this.#link.style.setProperty("left", `${(index % columns) * (cell + gap)}px`);
    this.#link.style.setProperty("top", `${Math.floor(index / columns) * (cell + gap)}px`);
  }

  /** `isMoved` by a key: it is said at once, since the link that has the focus is the same. */
  describe(index, text, isMoved) {
    this.#link.setAttribute("aria-label", text);
    if (isMoved) this.#live.textContent = text;
  }

  /** The link, which is at the active cell. */
  elementAt() {
    return this.#link;
  }
}
