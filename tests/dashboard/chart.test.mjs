// The large chart's lines: where points are, and where nothing was heard.

import assert from "node:assert/strict";
import { test } from "node:test";

import { marksOf, pathOf, pointsOf } from "../../src/dashboard/chart.js";

const NOW = Date.parse("2025-01-07T10:35:00Z");
const MINUTE = 60_000;

test("a history has its points in the middle of its steps, none ahead of now and none too old", () => {
  const history = { end: NOW + 4_000, stepMs: 10_000, cpu: [...Array(89).fill(1), 2], memory: Array(90).fill(3) };
  const points = pointsOf(history, NOW);
  assert.equal(points.length, 90);
  assert.deepEqual(points.at(-1), { at: NOW - 1_000, cpu: 2, memory: 3 });
  assert.deepEqual(points.at(-2), { at: NOW - 11_000, cpu: 1, memory: 3 });
  assert.equal(pointsOf({ ...history, end: NOW + 10_000 }, NOW).at(-1).at, NOW, "a step that has just begun");
  assert.equal(pointsOf(history, NOW + MINUTE).length, 84, "the first six have left the chart");
});

test("a line is broken where nothing was heard, and one point alone is drawn", () => {
  const at = (minutes, cpu) => ({ at: NOW - minutes * MINUTE, cpu, memory: cpu });
  const points = [at(15, 0), at(12, 100), at(9, null), at(6, 50), at(3, null), at(0, 25.04)];
  assert.equal(pathOf(points, "cpu", NOW), "M0.0 100.0L200.0 0.0M600.0 50.0h.1M1000.0 75.0h.1");
  assert.equal(pathOf([], "cpu", NOW), "");
  assert.equal(pathOf([at(1, null)], "memory", NOW), "");
});

test("the time axis is marked every five minutes of the clock", () => {
  const clock = (at) => new Date(at).toISOString().slice(11, 19);
  assert.deepEqual(marksOf(NOW).map(clock), ["10:20:00", "10:25:00", "10:30:00", "10:35:00"]);
  assert.deepEqual(marksOf(NOW + 1).map(clock), ["10:25:00", "10:30:00", "10:35:00"]);
});
