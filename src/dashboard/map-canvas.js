// A map's cells on one canvas: thousands. Above the cell that is pointed at or focused lies a link, so
// that all that links do works: keys, another tab, the focus ring.

import { coloursOf, paintCell, PULSE_STAGES, stepOf } from "./map-paint.js";

/** Each stage of a pulse lasts this long. */
const PULSE_STEP_MS = 130;

/** The drawing part of a `FleetMap`, which says which cell is where. */
export class CellCanvas {
  element = document.createElement("div");
  #canvas = document.createElement("canvas");
  #link = document.createElement("a");
  #live = document.createElement("span");
  #context;
  #hrefOf;
  #isHeat;
  #colours = null;
  #cells = [];
  #drawn = [];
  #layout = null;
  /** Device pixels in a CSS pixel, and sizes in device pixels. */
  #ratio = 1;
  #size = 0;
  #pitch = 0;
  /** The stage of the pulse of the cells that have one, by index. */
  #pulsing = new Map();
  #timer = null;

  constructor(hrefOf, isHeat) {
    this.#hrefOf = hrefOf;
    this.#isHeat = isHeat;
    this.element.className = "cells-canvas";
    this.#canvas.setAttribute("aria-hidden", "true");
    this.#link.className = "cursor";
    this.#live.className = "unseen";
    this.#live.setAttribute("aria-live", "polite");
    this.element.append(this.#canvas, this.#link, this.#live);
    this.#context = this.#canvas.getContext("2d");
  }

  build(cells) {
    this.#cells = cells;
    this.#pulsing.clear();
    if (this.#layout !== null) this.place(this.#layout);
  }

  /** Lays the cells out as `packCells` says, in whole device pixels, and draws them all. */
  place(layout) {
    this.#layout = layout;
    this.#ratio = globalThis.devicePixelRatio;
    this.#size = Math.max(1, Math.round(layout.cell * this.#ratio));
    this.#pitch = Math.max(this.#size + 1, Math.floor((layout.cell + layout.gap) * this.#ratio));
    const gap = this.#pitch - this.#size;
    this.#canvas.width = Math.max(1, layout.columns * this.#pitch - gap);
    this.#canvas.height = Math.max(1, Math.ceil(this.#cells.length / layout.columns) * this.#pitch - gap);
    this.#canvas.style.setProperty("width", `${this.#canvas.width / this.#ratio}px`);
    this.#canvas.style.setProperty("height", `${this.#canvas.height / this.#ratio}px`);
    const side = `${this.#size / this.#ratio}px`;
    this.#link.style.setProperty("width", side);
    this.#link.style.setProperty("height", side);
    this.#drawAll();
  }

  paint(index, cell) {
    this.#cells[index] = cell;
    if (this.#drawn[index] !== keyOf(cell)) this.#draw(index, this.#pulsing.get(index) ?? 0);
  }

  pulse(indices) {
    // A wall's heat map pulses fainter: a quarter of it at once would flicker.
    const stage = this.#isHeat ? 1 : PULSE_STAGES - 1;
    for (const index of indices) {
      this.#pulsing.set(index, stage);
      this.#draw(index, stage);
    }
    this.#timer ??= setTimeout(() => this.#fade(), PULSE_STEP_MS);
  }

  #fade() {
    this.#timer = null;
    for (const [index, stage] of this.#pulsing) {
      if (stage === 1) this.#pulsing.delete(index);
      else this.#pulsing.set(index, stage - 1);
      this.#draw(index, stage - 1);
    }
    if (this.#pulsing.size > 0) this.#timer = setTimeout(() => this.#fade(), PULSE_STEP_MS);
  }

  /** Moves the link to the cell at `index`. */
  activate(index) {
    const { id, name } = this.#cells[index];
    this.#link.dataset.agent = id;
    this.#link.href = this.#hrefOf(id);
    this.#link.setAttribute("aria-label", name);
    const { columns } = this.#layout;
    this.#link.style.setProperty("left", `${((index % columns) * this.#pitch) / this.#ratio}px`);
    this.#link.style.setProperty("top", `${(Math.floor(index / columns) * this.#pitch) / this.#ratio}px`);
  }

  describe(index, text, isMoved) {
    this.#link.setAttribute("aria-label", text);
    if (isMoved) this.#live.textContent = text;
  }

  focus() {
    this.#link.focus({ preventScroll: true });
  }

  indexAt({ clientX, clientY }) {
    if (this.#layout === null) return -1;
    const box = this.#canvas.getBoundingClientRect();
    const at = (offset) => Math.floor((offset * this.#ratio) / this.#pitch);
    const [column, row] = [at(clientX - box.left), at(clientY - box.top)];
    const { columns } = this.#layout;
    if (column < 0 || row < 0 || column >= columns) return -1;
    const index = row * columns + column;
    return index < this.#cells.length ? index : -1;
  }

  /** The link, which is at the active cell. */
  elementAt() {
    return this.#link;
  }

  /** The colour scheme is another. */
  recolour() {
    this.#colours = null;
    this.#drawAll();
  }

  stop() {
    clearTimeout(this.#timer);
  }

  #drawAll() {
    if (this.#layout === null || !this.element.isConnected) return;
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#drawn = [];
    for (let index = 0; index < this.#cells.length; index += 1) this.#draw(index, 0);
  }

  #draw(index, stage) {
    this.#colours ??= coloursOf(this.#canvas);
    const cell = this.#cells[index];
    const { columns } = this.#layout;
    const x = (index % columns) * this.#pitch;
    const y = Math.floor(index / columns) * this.#pitch;
    if (this.#drawn[index] !== undefined) this.#context.clearRect(x, y, this.#size, this.#size);
    this.#drawn[index] = keyOf(cell);
    paintCell(this.#context, this.#colours, cell, x, y, this.#size, { pulse: stage, isHeat: this.#isHeat });
  }
}

/** What is seen of a cell, as one value. */
function keyOf({ kind, load }) {
  return `${kind}${stepOf(load)}`;
}
