// Draws a map's cells on a canvas, and pulses. Knows of no pointer, key or agent.

import { coloursOf, paintCell, PULSE_STAGES, stepOf } from "./map-paint.js";

/** A pulse fades by a stage with the next heartbeats, but not sooner than this, */
const FADE_AFTER_MS = 150;
/** and by itself after this, longer than a batch takes: each fading by itself costs a frame of its own. */
const FADE_AT_LAST_MS = 350;

/** The drawing part of a `FleetMap`. */
export class CellCanvas {
  element = document.createElement("canvas");
  #context;
  #isHeat;
  #colours = null;
  #cells = [];
  #drawn = [];
  #columns = 0;
  /** Of a cell, and from one to the next, in device pixels. */
  #size = 0;
  #pitch = 0;
  /** Device pixels of a CSS pixel, at the time of the layout. */
  #ratio = 1;
  /** The stage of the pulse of the cells that have one, by index. */
  #pulsing = new Map();
  #fadedAt = -Infinity;
  #timer = null;

  constructor(isHeat) {
    this.#isHeat = isHeat;
    this.element.setAttribute("aria-hidden", "true");
    this.#context = this.element.getContext("2d");
  }

  /** Shows `cells` from now on, once they have a place. */
  build(cells) {
    this.#cells = cells;
    this.#pulsing.clear();
  }

  /** Lays the cells out as `snapToPixels` says, for a screen of `ratio`, and draws them all. */
  place({ cell, gap, columns }, ratio) {
    this.#columns = columns;
    this.#ratio = ratio;
    this.#size = Math.round(cell * ratio);
    this.#pitch = Math.round((cell + gap) * ratio);
    const spare = this.#pitch - this.#size;
    const rows = Math.ceil(this.#cells.length / columns);
    this.element.width = Math.max(1, columns * this.#pitch - spare);
    this.element.height = Math.max(1, rows * this.#pitch - spare);
    this.element.style.setProperty("width", `${this.element.width / ratio}px`);
    this.element.style.setProperty("height", `${this.element.height / ratio}px`);
    this.#drawAll();
  }

  /** Draws the cell at `index`, which is `cell` now, if it looks different. */
  paint(index, cell) {
    this.#cells[index] = cell;
    if (this.#columns > 0 && this.#drawn[index] !== keyOf(cell)) this.#draw(index);
  }

  pulse(indices) {
    if (this.#columns === 0) return;
    if (performance.now() - this.#fadedAt >= FADE_AFTER_MS) this.#fade();
    // A wall's heat map pulses fainter: a quarter of it at once would flicker.
    const stage = this.#isHeat ? 1 : PULSE_STAGES - 1;
    for (const index of indices) {
      this.#pulsing.set(index, stage);
      this.#draw(index);
    }
    this.#fadeLater();
  }

  /** The colour scheme is another. */
  recolour() {
    this.#colours = null;
    if (this.#columns > 0) this.#drawAll();
  }

  /** The index of the cell at a place of the window, or -1. */
  indexAt(clientX, clientY) {
    const box = this.element.getBoundingClientRect();
    const at = (offset) => Math.floor((offset * this.#ratio) / this.#pitch);
    const [column, row] = [at(clientX - box.left), at(clientY - box.top)];
    if (column < 0 || row < 0 || column >= this.#columns) return -1;
    const index = row * this.#columns + column;
    return index < this.#cells.length ? index : -1;
  }

  stop() {
    clearTimeout(this.#timer);
  }

  #fade() {
    this.#fadedAt = performance.now();
    for (const [index, stage] of this.#pulsing) {
      if (stage === 1) this.#pulsing.delete(index);
      else this.#pulsing.set(index, stage - 1);
      this.#draw(index);
    }
  }

  #fadeLater() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#fade();
      if (this.#pulsing.size > 0) this.#fadeLater();
    }, FADE_AT_LAST_MS);
  }

  #drawAll() {
    this.#context.clearRect(0, 0, this.element.width, this.element.height);
    this.#drawn = [];
    for (let index = 0; index < this.#cells.length; index += 1) this.#draw(index);
  }

  #draw(index) {
    this.#colours ??= coloursOf(this.element);
    const cell = this.#cells[index];
    const x = (index % this.#columns) * this.#pitch;
    const y = Math.floor(index / this.#columns) * this.#pitch;
    if (this.#drawn[index] !== undefined) this.#context.clearRect(x, y, this.#size, this.#size);
    this.#drawn[index] = keyOf(cell);
    const pulse = this.#pulsing.get(index) ?? 0;
    paintCell(this.#context, this.#colours, cell, x, y, this.#size, { pulse, isHeat: this.#isHeat });
  }
}

/** What is seen of a cell, as one value. */
function keyOf({ kind, load }) {
  return `${kind}${stepOf(load)}`;
}
