// Where rows or cards of one fixed size stand, and which of them a part of the list shows. Nothing
// has to be measured for that, and nothing has to exist that is out of sight. Pure; no DOM.

/** Elements of `width` by `height` pixels in `columns`, `gapX` and `gapY` apart. */
export class Placing {
  #columns;
  #stepX;
  #stepY;
  #gapY;

  constructor({ columns, width, height, gapX = 0, gapY = 0 }) {
    this.#columns = columns;
    this.#stepX = width + gapX;
    this.#stepY = height + gapY;
    this.#gapY = gapY;
  }

  /** How far element `index` stands from the left and from the top. */
  at(index) {
    const column = index % this.#columns;
    return { x: column * this.#stepX, y: ((index - column) / this.#columns) * this.#stepY };
  }

  /** The height of `count` elements together. */
  heightOf(count) {
    return count === 0 ? 0 : Math.ceil(count / this.#columns) * this.#stepY - this.#gapY;
  }

  /** The first of `count` elements that reach below `top` and above `bottom`, and the one after the last. */
  between(top, bottom, count) {
    const index = (line) => Math.min(count, Math.max(0, line * this.#columns));
    const from = index(Math.floor((top + this.#gapY) / this.#stepY));
    return { from, to: Math.max(from, index(Math.ceil(bottom / this.#stepY))) };
  }
}
