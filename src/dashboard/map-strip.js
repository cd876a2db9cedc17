// A pool in its card: cells as small as they must be, or a bar by state. Pictures only, without a
// pulse, hidden from screen readers: the card says it in words.

import { packCells, snapToPixels } from "./map-layout.js";
import { coloursOf, KINDS, paintCell } from "./map-paint.js";

/** The height that the cells of a card keep to, and the largest cell, in CSS pixels. */
const STRIP_HEIGHT = 64;
const LARGEST_STRIP_CELL = 14;

/** Kinds by their letters in the overview's `cells`; each is followed by the tens digit of the load. */
const LETTERS = { b: "busy", i: "idle", l: "late", e: "error", p: "paused", o: "other" };

/** What is drawn in each element, and its width, as the observer tells it: to ask would cost a layout. */
const drawn = new Map();
const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const strip = drawn.get(target);
    if (strip === undefined || strip.width === contentRect.width) continue;
    strip.width = contentRect.width;
    draw(target);
  }
});
/** The same for all; null until they are needed, or after another scheme was chosen. */
let colours = null;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colours = null;
  for (const element of drawn.keys()) draw(element);
});

/** The cells of `text`, as the overview's feed writes them: `"b4i0"` is one busy at 40 to 49 %, one idle. */
export function readCells(text) {
  const cells = [];
  for (let at = 0; at + 1 < text.length; at += 2) {
    const load = Number(text[at + 1]) * 10 + 5;
    cells.push({ kind: LETTERS[text[at]] ?? "other", load: Number.isNaN(load) ? null : load });
  }
  return cells;
}

/** Draws `text`, an overview's `cells`, in `element`: anew only where it is another. */
export function drawCells(element, text) {
  const strip = drawn.get(element);
  if (strip?.text === text) return;
  if (strip !== undefined) {
    strip.text = text;
    draw(element);
    return;
  }
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  element.replaceChildren(canvas);
  element.className = "cell-strip";
  drawn.set(element, { text, width: 0 });
  sizes.observe(element);
}

/** Draws no more in `element`, which leaves the page. */
export function forgetCells(element) {
  drawn.delete(element);
  sizes.unobserve(element);
}

function draw(element) {
  const { text, width } = drawn.get(element);
  // Not on the page yet, or hidden: the observer tells of its size.
  if (width === 0) return;
  const cells = readCells(text);
  const ratio = globalThis.devicePixelRatio;
  const layout = snapToPixels(packCells(width, STRIP_HEIGHT, cells.length, LARGEST_STRIP_CELL), ratio);
  const size = Math.round(layout.cell * ratio);
  const pitch = Math.round((layout.cell + layout.gap) * ratio);
  const canvas = element.firstElementChild;
  const context = canvas.getContext("2d");
  resize(canvas, Math.max(1, layout.columns * pitch), Math.max(1, layout.rows * pitch), ratio);
  context.clearRect(0, 0, canvas.width, canvas.height);
  colours ??= coloursOf(canvas);
  cells.forEach((cell, index) => {
    paintCell(context, colours, cell, (index % layout.columns) * pitch, Math.floor(index / layout.columns) * pitch, size);
  });
}

/** Also to the size that it has costs a layout. */
function resize(canvas, width, height, ratio) {
  if (canvas.width === width && canvas.height === height) return;
  canvas.width = width;
  canvas.height = height;
  canvas.style.setProperty("width", `${width / ratio}px`);
  canvas.style.setProperty("height", `${height / ratio}px`);
}

/** Makes `element` a bar of `states`, numbers by kind: the worst first, each as long as its share. */
export function stateBar(element, states) {
  if (drawn.has(element)) forgetCells(element);
  if (!element.classList.contains("state-bar")) {
    element.className = "state-bar";
    element.setAttribute("aria-hidden", "true");
    element.replaceChildren(
      ...KINDS.map((kind) => {
        const part = document.createElement("span");
        part.dataset.kind = kind;
        return part;
      }),
    );
  }
  for (const part of element.children) {
    const number = states[part.dataset.kind] ?? 0;
    const share = String(number);
    if (part.hidden !== (number === 0)) part.hidden = number === 0;
    if (part.style.flexGrow !== share) part.style.setProperty("flex-grow", share);
  }
}
