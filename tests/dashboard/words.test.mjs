// Levels, lateness, and how numbers and times are written: the edges.

import assert from "node:assert/strict";
import test from "node:test";

import { ageMs, byAge, isLate, level, summarise } from "../../src/dashboard/health.js";
import { percent, span } from "../../src/dashboard/text.js";

const NOW = Date.parse("2025-01-07T10:35:00Z");
const before = (ms) => new Date(NOW - ms).toISOString();

test("green under 70, yellow from 70 to under 90, red from 90; the number never contradicts it", () => {
  const seen = [0, 69.9, 69.96, 70, 89.9, 89.97, 90, 99.99, 100].map((value) => [level(value), percent(value)]);
  assert.deepEqual(seen, [
    ["ok", "0.0 %"],
    ["ok", "69.9 %"],
    ["ok", "69.9 %"],
    ["warm", "70.0 %"],
    ["warm", "89.9 %"],
    ["warm", "89.9 %"],
    ["hot", "90.0 %"],
    ["hot", "99.9 %"],
    ["hot", "100.0 %"],
  ]);
});

test("a span has two units at most", () => {
  const texts = [0, 999, 59_999, 60_000, 3_599_000, 3_600_000, 86_399_000, 86_400_000, 200_000_000].map(span);
  assert.deepEqual(texts, ["0 s", "0 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "23 h 59 min", "1 d 0 h", "2 d 7 h"]);
});

test("only RFC 3339 is a time", () => {
  assert.equal(ageMs("2025-01-07T10:34:00Z", NOW), 60_000);
  assert.equal(ageMs("2025-01-07T18:34:00.5+08:00", NOW), 59_500);
  assert.equal(ageMs("2025-01-07T10:36:00Z", NOW), 0);
  for (const text of ["yesterday", "2025", "", "7", "2025-13-45T10:34:00Z", undefined]) assert.equal(ageMs(text, NOW), null);
  assert.equal(ageMs("2025-01-07T10:34:00Z", null), null);
});

test("late is judged by the agent's own rhythm", () => {
  const agent = (silent, interval_ms) => ({ last_update_time: before(silent), interval_ms });
  assert.equal(isLate(agent(7_000, 2_000), NOW), false);
  assert.equal(isLate(agent(7_001, 2_000), NOW), true);
  assert.equal(isLate(agent(7_000, 10), NOW), false);
  assert.equal(isLate(agent(7_001, 10), NOW), true);
  assert.equal(isLate(agent(76_000, 30_000), NOW), false);
  assert.equal(isLate(agent(152_000, null), NOW), false);
  assert.equal(isLate(agent(152_001, null), NOW), true);
});

test("the longest-running task comes first, unreadable starts last", () => {
  const tasks = [{ started_at: "soon" }, { started_at: before(1) }, { started_at: before(9) }, { started_at: "" }];
  assert.deepEqual(byAge(tasks), [tasks[2], tasks[1], tasks[0], tasks[3]]);
});

test("a pool in figures", () => {
  const agent = (status, cpu_usage, memory_usage, silent = 0) => ({
    status,
    cpu_usage,
    memory_usage,
    last_update_time: before(silent),
    interval_ms: 1_000,
  });
  const agents = [agent("busy", 95, 20), agent("idle", 5, 69.9), agent("idle", 20, 70), agent("busy", 99, 99, 60_000)];
  const feed = {
    asOf: () => NOW,
    agents: new Map(agents.map((value, index) => [index, value])),
    departed: new Map([["x", { reason: "goodbye" }]]),
  };
  const summary = summarise(feed);
  assert.deepEqual(summary.byState, [["busy", 1], ["idle", 2]]);
  assert.deepEqual(summary.cpu, { mean: 40, max: 95 });
  const { late, hot, room, reporting, departed, lost, trouble } = summary;
  assert.deepEqual({ late, hot, room, reporting, departed, lost, trouble }, { late: 1, hot: 1, room: 1, reporting: 3, departed: 1, lost: 0, trouble: true });
  assert.equal(summarise({ asOf: () => null, agents: new Map(), departed: new Map() }).cpu, null);
});
