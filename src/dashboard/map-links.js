// A map's cells as links in the DOM: up to a few hundred. One of them is the tab stop.

import { LOAD_STEPS, stepOf } from "./map-paint.js";

/** A pulse is at its brightest for this long; how it fades is in map.css. */
const PULSE_MS = 150;

/** The drawing part of a `FleetMap`, which says which cell is where. */
export class CellLinks {
  element = document.createElement("div");
  #hrefOf;
  #cells = [];
  #pulsing = new Set();
  #timer = null;

  constructor(hrefOf) {
    this.#hrefOf = hrefOf;
    this.element.className = "cells";
  }

  /** Makes as many links as there are `cells`, each to its agent. */
  build(cells) {
    while (this.#cells.length > cells.length) this.#cells.pop().link.remove();
    while (this.#cells.length < cells.length) {
      const link = document.createElement("a");
      link.className = "cell";
      link.tabIndex = -1;
      this.element.append(link);
      this.#cells.push({ link, id: null, name: null, kind: null, step: null });
    }
    cells.forEach((cell, index) => {
      const drawn = this.#cells[index];
      if (drawn.id !== cell.id) {
        drawn.id = cell.id;
        drawn.link.dataset.agent = cell.id;
        drawn.link.href = this.#hrefOf(cell.id);
      }
      if (drawn.name !== cell.name) {
        drawn.name = cell.name;
        drawn.link.setAttribute("aria-label", cell.name);
      }
      this.paint(index, cell);
    });
  }

  /** Lays the cells out as `packCells` says. */
  place({ cell, gap, columns }) {
    const { style } = this.element;
    style.setProperty("grid-template-columns", `repeat(${columns}, ${cell}px)`);
    style.setProperty("grid-auto-rows", `${cell}px`);
    style.setProperty("gap", `${gap}px`);
  }

  /** Shows kind and load of the cell at `index`, where they changed. */
  paint(index, { kind, load }) {
    const drawn = this.#cells[index];
    if (drawn.kind !== kind) {
      drawn.kind = kind;
      drawn.link.dataset.kind = kind;
    }
    const step = stepOf(load);
    if (drawn.step !== step) {
      drawn.step = step;
      drawn.link.style.setProperty("--load", `${(100 * step) / LOAD_STEPS}%`);
    }
  }

  pulse(indices) {
    for (const index of indices) {
      const { link } = this.#cells[index];
      link.classList.add("beat");
      this.#pulsing.add(link);
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      for (const link of this.#pulsing) link.classList.remove("beat");
      this.#pulsing.clear();
    }, PULSE_MS);
  }

  /** Makes the cell at `index` the tab stop instead of the one at `before`. */
  activate(index, before) {
    if (this.#cells[before] !== undefined) this.#cells[before].link.tabIndex = -1;
    this.#cells[index].link.tabIndex = 0;
  }

  /** What a screen reader says of the cell at `index`, from now on. */
  describe(index, text) {
    this.#cells[index].link.setAttribute("aria-label", text);
  }

  focus(index) {
    this.#cells[index].link.focus({ preventScroll: true });
  }

  /** The index of the cell that an event of a pointer is about, or -1. */
  indexAt({ target }) {
    return this.#cells.findIndex(({ link }) => link === target);
  }

  elementAt(index) {
    return this.#cells[index].link;
  }

  recolour() {}

  stop() {
    clearTimeout(this.#timer);
  }
}
