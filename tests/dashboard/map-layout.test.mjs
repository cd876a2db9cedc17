// How large cells and tiles are: all fit, whatever the screen and the number of agents.

import assert from "node:assert/strict";
import test from "node:test";

import { fitWall, isKept, MAP_HEIGHT, packCells, splitScreen } from "../../src/dashboard/map-layout.js";

const SCREENS = [[1280, 720], [1920, 1080], [3840, 2160]];
/** What a wall's head and edges leave of a screen, about. */
const PANEL = 0.83;

test("a map's cells fit, and are the largest that do", () => {
  for (const width of [320, 700, 1240, 3800]) {
    for (const count of [1, 12, 40, 399, 400]) {
      const { cell, gap, columns, rows } = packCells(width, MAP_HEIGHT, count);
      assert.ok(columns * (cell + gap) - gap <= width, `${count} in ${width}: too wide`);
      assert.ok(rows * (cell + gap) - gap <= MAP_HEIGHT, `${count} in ${width}: too high`);
      assert.ok(columns * rows >= count, `${count} in ${width}: too few places`);
      if (cell === 28) continue;
      const next = packCells(width, Infinity, count, cell + 1);
      assert.ok(next.rows * (next.cell + next.gap) - next.gap > MAP_HEIGHT, `${count} in ${width}: larger ones fit`);
    }
  }
});

test("40 agents are a row or two, 2,000 keep to the height, and a telephone's map may be higher", () => {
  assert.ok(packCells(1240, MAP_HEIGHT, 40).rows <= 2);
  const many = packCells(1240, MAP_HEIGHT, 2_000);
  assert.ok(many.cell >= 7 && many.rows * (many.cell + many.gap) <= MAP_HEIGHT + many.gap);
  const telephone = packCells(296, MAP_HEIGHT, 10_000);
  assert.equal(telephone.cell, 3);
  assert.ok(telephone.columns * 4 - 1 <= 296);
});

test("a wall shows 12 and 40 agents in full, 400 with names, 2,000 as a heat map", () => {
  for (const [width, height] of SCREENS) {
    const level = (count) => fitWall(width * 0.98, height * PANEL, count, height).level;
    assert.deepEqual([1, 12, 40, 400, 2_000].map(level), ["full", "full", "full", "named", "heat"], `${width}×${height}`);
  }
});

test("a wall's tiles fit, with type that can be read", () => {
  for (const [width, height] of SCREENS) {
    for (let count = 1; count <= 3_000; count += count < 500 ? 1 : 97) {
      const layout = fitWall(width, height * PANEL, count, height);
      const { columns, rows, gap } = layout;
      const [wide, high] = layout.level === "heat" ? [layout.cell, layout.cell] : [layout.wide, layout.high];
      const what = `${count} on ${width}×${height}: ${JSON.stringify(layout)}`;
      assert.ok(columns * rows >= count, what);
      assert.ok(columns * (wide + gap) - gap <= width + 0.01, what);
      assert.ok(rows * (high + gap) - gap <= height * PANEL + 0.01, what);
      if (layout.level !== "heat") assert.ok(layout.unit >= Math.max(9, height / 80), what);
    }
  }
});

test("a layout is kept while agents come and go, and left when it is full or too large", () => {
  const layout = { columns: 8, rows: 5 };
  assert.deepEqual([41, 40, 33, 25, 24, 1].map((count) => isKept(layout, count)), [false, true, true, true, false, false]);
  for (let count = 1; count <= 500; count += 1) {
    const fitted = fitWall(1280, 620, count, 720);
    assert.ok(isKept(fitted, count), `the layout for ${count} does for ${count}`);
  }
});

test("panels are as near to the screen's own shape as they get", () => {
  assert.deepEqual(splitScreen(1920, 1080, 1), { columns: 1, rows: 1 });
  assert.deepEqual(splitScreen(1920, 1080, 2), { columns: 1, rows: 2 });
  assert.deepEqual(splitScreen(1920, 1080, 4), { columns: 2, rows: 2 });
  assert.deepEqual(splitScreen(1920, 1080, 12), { columns: 3, rows: 4 });
  assert.deepEqual(splitScreen(720, 1280, 2), { columns: 1, rows: 2 });
});
