// A link for each cell of a map, above what the canvas draws: up to a few hundred. One of them is the
// tab stop.

/** What can be pointed at and focused in a `FleetMap` of a few hundred cells. */
export class CellLinks {
  element = document.createElement("div");
  #hrefOf;
  #links = [];

  constructor(hrefOf) {
    this.#hrefOf = hrefOf;
    this.element.className = "cell-links";
  }

  /** Makes as many links as there are `cells`, each to its agent. */
  build(cells) {
    while (this.#links.length > cells.length) this.#links.pop().link.remove();
    while (this.#links.length < cells.length) {
      const link = document.createElement("a");
      link.tabIndex = -1;
      this.element.append(link);
      this.#links.push({ link, id: null, name: null, kind: null });
    }
    cells.forEach(({ id, name, kind }, index) => {
      const known = this.#links[index];
      if (known.id !== id) {
        known.link.dataset.agent = id;
        known.link.href = this.#hrefOf(id);
      }
      if (known.name !== name) known.link.setAttribute("aria-label", name);
      Object.assign(known, { id, name });
      this.mark(index, kind);
    });
  }

  /** The cell at `index` is of `kind`. */
  mark(index, kind) {
    const known = this.#links[index];
    if (known.kind === kind) return;
    known.kind = kind;
    known.link.dataset.kind = kind;
  }

  /** Lays the links out as `snapToPixels` says. */
  place({ cell, gap, columns }) {
    const { style } = this.element;
    style.setProperty("grid-template-columns", `repeat(${columns}, ${cell}px)`);
    style.setProperty("grid-auto-rows", `${cell}px`);
    style.setProperty("gap", `${gap}px`);
  }

  /** Makes the cell at `index` the tab stop instead of the one at `before`. */
  activate(index, before) {
    if (this.#links[before] !== undefined) this.#links[before].link.tabIndex = -1;
    this.#links[index].link.tabIndex = 0;
  }

  /** What a screen reader says of the cell at `index`, from now on. */
  describe(index, text) {
    this.#links[index].link.setAttribute("aria-label", text);
  }

  elementAt(index) {
    return this.#links[index].link;
  }
}
