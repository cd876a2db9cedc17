// How a pool's agents are looked at: the address there and back, filters, orders.

import assert from "node:assert/strict";
import test from "node:test";

import { judge, SEVERITY, TROUBLE } from "../../src/dashboard/health.js";
import { isFiltered, isRestless, isShown, orderOf, PLAIN, readView, sortedBy, SORTS, writeView } from "../../src/dashboard/view.js";

const read = (text) => readView(new URLSearchParams(text));
const write = (view, before = "") => {
  const params = new URLSearchParams(before);
  writeView(view, params);
  return params.toString();
};

test("the address holds the view, and nothing where it is plain", () => {
  assert.deepEqual(read(""), { ...PLAIN });
  assert.equal(write(PLAIN), "");
  for (const sort of SORTS) {
    for (const descending of [false, true]) {
      const view = { text: "a&b 中", state: "late", sort, descending, hideOffline: descending, layout: "grid" };
      assert.deepEqual(read(write(view)), view);
    }
  }
  assert.equal(write(PLAIN, "q=old&state=busy&sort=cpu&order=asc&offline=hide&view=grid&x=1"), "x=1");
  assert.equal(write({ ...PLAIN, sort: "name" }), "sort=name&order=asc");
});

test("what an address spells wrong is plain, and an order that it leaves out is the sort's own", () => {
  assert.deepEqual(read("sort=colour&order=up&offline=no&view=list"), { ...PLAIN });
  assert.equal(read("sort=cpu").descending, true);
  assert.equal(read("sort=cpu&order=asc").descending, false);
  assert.equal(read("sort=state").descending, false);
  assert.equal(read("order=desc").descending, true);
});

test("a second sort by the same turns it round", () => {
  const cpu = sortedBy(PLAIN, "cpu");
  assert.deepEqual([cpu.sort, cpu.descending], ["cpu", true]);
  assert.equal(sortedBy(cpu, "cpu").descending, false);
  assert.equal(sortedBy(cpu, "name").descending, false);
  assert.deepEqual([PLAIN, { ...PLAIN, sort: "name" }, cpu, { ...PLAIN, sort: "name", state: "late" }, { ...PLAIN, sort: "name", text: "x" }].map(isRestless), [
    true,
    false,
    true,
    true,
    true,
  ]);
});

test("a filter is by text, by state, and by being there", () => {
  const agent = (state, words = "", more = {}) => ({ state, high: false, trouble: TROUBLE.NONE, words: () => words, ...more });
  assert.equal(isShown({ ...PLAIN, text: " WS-1 " }, agent("busy", "name\nplan #7 ws-12")), true);
  assert.equal(isShown({ ...PLAIN, text: "ws-2" }, agent("busy", "name\nplan #7 ws-12")), false);
  assert.equal(isShown({ ...PLAIN, text: "   " }, agent("busy", "x")), true);
  assert.equal(isShown({ ...PLAIN, state: "late" }, agent("late")), true);
  assert.equal(isShown({ ...PLAIN, state: "late" }, agent("busy")), false);
  assert.equal(isShown({ ...PLAIN, state: "late" }, agent("own.late")), false);
  assert.equal(isShown({ ...PLAIN, state: "high" }, agent("busy", "", { high: true })), true);
  assert.equal(isShown({ ...PLAIN, state: "high" }, agent("own.high")), false);
  assert.equal(isShown({ ...PLAIN, state: "attention" }, agent("busy", "", { trouble: TROUBLE.HIGH })), true);
  assert.equal(isShown({ ...PLAIN, state: "attention" }, agent("busy")), false);
  const isLeft = (trouble) => isShown({ ...PLAIN, hideOffline: true }, agent("lost", "", { trouble }));
  assert.deepEqual([TROUBLE.GONE, TROUBLE.LOST, TROUBLE.NONE].map(isLeft), [false, true, true]);
  const views = [{}, { sort: "cpu", layout: "grid" }, { text: " " }, { text: "x" }, { state: "busy" }, { hideOffline: true }];
  assert.deepEqual(views.map((view) => isFiltered({ ...PLAIN, ...view })), [false, false, false, true, true, true]);
});

test("orders: by figure, equals by name, who has no figure last either way", () => {
  const agent = (rank, more) => ({ rank, kind: "idle", trouble: TROUBLE.NONE, cpu: 1, memory: 1, tasks: 0, heard: 1, ...more });
  const sorted = (sort, descending, agents) => agents.toSorted(orderOf({ sort, descending })).map(({ rank }) => rank);
  const loads = [agent(0, { cpu: null }), agent(1, { cpu: 5 }), agent(2, { cpu: 9 }), agent(3, { cpu: 5 })];
  assert.deepEqual(sorted("cpu", true, loads), [2, 1, 3, 0]);
  assert.deepEqual(sorted("cpu", false, loads), [1, 3, 2, 0]);
  assert.deepEqual(sorted("name", true, loads), [3, 2, 1, 0]);
  const kinds = SEVERITY.toReversed().map((kind, rank) => agent(rank, { kind }));
  assert.deepEqual(sorted("state", false, [...kinds, agent(9)]), [8, 7, 6, 5, 4, 3, 2, 1, 9, 0]);
  assert.deepEqual(sorted("heard", true, [agent(0, { heard: 9 }), agent(1, { heard: null }), agent(2, { heard: 3 })]), [2, 0, 1]);
});

test("by trouble: lost with tasks, lost, in error, late, memory or disk full, all others, departed", () => {
  const now = "2025-01-07T10:35:00.000Z";
  const live = (more) => ({ status: "idle", cpu_usage: 100, memory_usage: 1, last_update_time: now, interval_ms: 1_000, ...more });
  const gone = (more) => ({ reason: "goodbye", at: now, running_tasks: [], ...more });
  const all = {
    calm: live(),
    "by name": live({ status: "maintenance" }),
    disk: live({ disk_usage: 90 }),
    memory: live({ memory_usage: 90 }),
    late: live({ last_update_time: "2025-01-07T10:34:00.000Z" }),
    error: live({ status: "failed" }),
    bye: gone(),
    silent: gone({ reason: "timeout" }),
    "left tasks": gone({ running_tasks: [{}] }),
    "long ago": gone({ reason: "timeout", running_tasks: [{}], at: "2025-01-07T09:34:59.999Z" }),
  };
  const rows = Object.entries(all).map(([name, metrics], rank) => ({ name, rank, ...judge(metrics, Date.parse(now)) }));
  const expected = ["left tasks", "silent", "error", "late", "disk", "memory", "calm", "by name", "bye", "long ago"];
  assert.deepEqual(rows.toSorted(orderOf(PLAIN)).map(({ name }) => name), expected);
  assert.deepEqual(rows.toReversed().sort(orderOf(PLAIN)).map(({ name }) => name), expected, "whatever the order was");
});
