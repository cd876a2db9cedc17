// How large cells and tiles are, so that all fit: arithmetic of maps and walls. Pure; no DOM.

/** The largest cell of a map on a page, in CSS pixels: 40 agents are a row or two. */
export const LARGEST_CELL = 28;
/** The smallest cell, in CSS pixels: still told from its neighbours. Below it a map grows taller. */
const SMALLEST_CELL = 3;
/** The height that a map on a page keeps to, in CSS pixels: the table below stays in sight. */
export const MAP_HEIGHT = 120;
/** The largest cell of a wall's heat map, as a share of the screen's height. */
const LARGEST_HEAT_CELL = 1 / 12;

/**
 * A tile with all figures, and one with the name alone: `wide` and `high` in units of its type size, and
 * the gap between tiles as a share of the screen's height.
 */
const FULL_TILE = { wide: 15, high: 6.4, gap: 1 / 180 };
const NAMED_TILE = { wide: 10, high: 1.65, gap: 1 / 360 };
/** Tiles grow so much beyond what their type needs, to fill the screen. */
const STRETCH = { wide: 1.6, high: 1.4 };
/** The smallest type, as a share of the screen's height, and in pixels: read from a chair at least. */
const SMALLEST_TYPE = 1 / 80;
const SMALLEST_TYPE_PX = 9;
/** The largest type in a tile, as a share of the screen's height. */
const LARGEST_TYPE = 1 / 22;
/** A layout is kept until this share of its places is free: runners come and go, tiles stay put. */
const KEPT_WHILE_FILLED = 0.75;

/** The gap between cells of this size. */
export function gapOf(cell) {
  if (cell >= 36) return Math.round(cell / 12);
  if (cell >= 16) return 3;
  return cell >= 8 ? 2 : 1;
}

/**
 * The largest square cells, in whole pixels, of which `count` fit into `width` and `height`:
 * `cell`, `gap`, `columns`, `rows`. Where not even the smallest fit, the map is taller than `height`.
 */
export function packCells(width, height, count, largest = LARGEST_CELL) {
  for (let cell = Math.floor(largest); ; cell -= 1) {
    const gap = gapOf(cell);
    const columns = Math.max(1, Math.floor((width + gap) / (cell + gap)));
    const rows = Math.ceil(count / columns);
    if (cell <= SMALLEST_CELL || rows * (cell + gap) - gap <= height) return { cell, gap, columns, rows };
  }
}

/** `layout` of `packCells` in whole device pixels, of which `ratio` are a CSS pixel: sharp, and not wider. */
export function snapToPixels(layout, ratio) {
  const size = Math.max(1, Math.round(layout.cell * ratio));
  const pitch = Math.max(size + 1, Math.floor((layout.cell + layout.gap) * ratio));
  return { ...layout, cell: size / ratio, gap: (pitch - size) / ratio };
}

/** As many equal panels as there are `pools`, each as near to the screen's own shape as it gets. */
export function splitScreen(width, height, pools) {
  let best = null;
  for (let columns = 1; columns <= pools; columns += 1) {
    const rows = Math.ceil(pools / columns);
    const size = Math.min(width / columns / 16, height / rows / 9);
    if (best === null || size > best.size) best = { columns, rows, size };
  }
  return { columns: best.columns, rows: best.rows };
}

/**
 * How `count` agents are shown in a panel of `width` and `height` on a screen `screenHeight` high:
 * `level` is `full`, `named` or `heat`. Tiles have `columns`, `rows`, `gap`, their type size `unit`, and
 * their size `wide` and `high`; a heat map what `packCells` says.
 */
export function fitWall(width, height, count, screenHeight) {
  const smallest = Math.max(SMALLEST_TYPE_PX, screenHeight * SMALLEST_TYPE);
  const largest = Math.max(smallest, screenHeight * LARGEST_TYPE);
  for (const [level, tile] of [["full", FULL_TILE], ["named", NAMED_TILE]]) {
    const gap = Math.max(2, Math.round(screenHeight * tile.gap));
    const fitted = fitTiles(width, height, count, gap, largest, tile);
    if (fitted.unit >= smallest) return { level, gap, ...fitted };
  }
  return { level: "heat", ...packCells(width, height, count, screenHeight * LARGEST_HEAT_CELL) };
}

/** Whether a layout with so many `columns` and `rows` still does for `count`, neither full nor much too large. */
export function isKept(layout, count) {
  const places = layout.columns * layout.rows;
  return count <= places && count > (places - layout.columns) * KEPT_WHILE_FILLED;
}

/** The number of columns that gives tiles the largest type, and of those one that fills the screen. */
function fitTiles(width, height, count, gap, largest, tile) {
  let best = { unit: 0, columns: 0, wide: 0 };
  for (let columns = 1; columns <= Math.max(1, count); columns += 1) {
    const rows = Math.max(1, Math.ceil(count / columns));
    const place = { wide: (width - gap * (columns - 1)) / columns, high: (height - gap * (rows - 1)) / rows };
    const unit = Math.min(largest, place.wide / tile.wide, place.high / tile.high);
    const wide = Math.floor(Math.min(place.wide, STRETCH.wide * unit * tile.wide));
    const high = Math.floor(Math.min(place.high, STRETCH.high * unit * tile.high));
    const isWider = unit === best.unit && columns * wide > best.columns * best.wide;
    if (unit > best.unit || isWider) best = { columns, rows, unit, wide, high };
  }
  return best;
}
