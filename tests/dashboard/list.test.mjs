// The list of agents without its page: where rows stand, what charts are drawn from, and what is asked
// of the server for them.

import assert from "node:assert/strict";
import test from "node:test";

import { AgentEntry } from "../../src/dashboard/agent-entry.js";
import { History, HISTORY_MS, STEP_MS } from "../../src/dashboard/history.js";
import { Refusal } from "../../src/dashboard/metrics-client.js";
import { Placing } from "../../src/dashboard/placing.js";
import { Trends } from "../../src/dashboard/trends.js";

/** The begin of a step. */
const START = 1_000_000_000_000;

test("rows stand one below the other, cards side by side with gaps", () => {
  const table = new Placing({ columns: 1, width: 900, height: 34 });
  assert.deepEqual([0, 1, 9_999].map((index) => table.at(index)), [{ x: 0, y: 0 }, { x: 0, y: 34 }, { x: 0, y: 339_966 }]);
  assert.deepEqual([0, 1, 10_000].map((count) => table.heightOf(count)), [0, 34, 340_000]);
  const grid = new Placing({ columns: 3, width: 200, height: 80, gapX: 10, gapY: 20 });
  assert.deepEqual([0, 2, 3, 7].map((index) => grid.at(index)), [
    { x: 0, y: 0 },
    { x: 420, y: 0 },
    { x: 0, y: 100 },
    { x: 210, y: 200 },
  ]);
  assert.deepEqual([0, 1, 3, 4].map((count) => grid.heightOf(count)), [0, 80, 80, 180]);
});

test("in sight is what touches the window, whole lines of it, and nothing else", () => {
  const table = new Placing({ columns: 1, width: 900, height: 34 });
  const between = (top, bottom, count = 100) => Object.values(table.between(top, bottom, count));
  assert.deepEqual(between(0, 68), [0, 2]);
  assert.deepEqual(between(0, 69), [0, 3]);
  assert.deepEqual(between(33, 34), [0, 1]);
  assert.deepEqual(between(34, 35), [1, 2]);
  assert.deepEqual(between(-500, -10), [0, 0], "above the list");
  assert.deepEqual(between(3_400, 4_000), [100, 100], "below it");
  assert.deepEqual(between(3_399, 4_000), [99, 100]);
  assert.deepEqual(between(-500, 5_000, 0), [0, 0]);
  const grid = new Placing({ columns: 3, width: 200, height: 80, gapX: 10, gapY: 20 });
  assert.deepEqual(Object.values(grid.between(0, 100, 8)), [0, 3]);
  assert.deepEqual(Object.values(grid.between(0, 101, 8)), [0, 6]);
  assert.deepEqual(Object.values(grid.between(180, 1_000, 8)), [6, 8], "what is in the gap is not in sight");
});

test("a chart's line is of one point a step, in its window, and broken where the agent was late", () => {
  const history = new History();
  history.add(START, 0, 100, 15_000);
  history.add(START + 9_000, 50, 40, 15_000);
  history.add(START + 10_000, 100, 0, 15_000);
  history.add(START + 50_000, 25, 25, 15_000);
  const pathsAt = (seconds, windowMs = 60_000) => history.paths(START + seconds * 1_000, windowMs, 15_000, 300);
  assert.deepEqual(pathsAt(50), {
    cpu: "M25.0 50.0h25.0L100.0 0.0M275.0 75.0h25.0",
    memory: "M25.0 60.0h25.0L100.0 100.0M275.0 75.0h25.0",
  });
  assert.equal(pathsAt(50, 40_000).cpu, "M262.5 75.0h37.5", "what is older than the window is left out");
  assert.equal(pathsAt(60, 40_000).cpu, "M187.5 75.0h37.5H300", "in time, it is taken to be as it was");
  assert.equal(pathsAt(80, 40_000).cpu, "M37.5 75.0h37.5", "and no longer");
  assert.equal(history.paths(START + 60_000, 40_000, -Infinity, 300).cpu, "M187.5 75.0h37.5", "nor where it is gone");
  const { cpu } = pathsAt(50);
  history.add(START, 1, 1, 15_000);
  history.add(NaN, 1, 1, 15_000);
  assert.equal(pathsAt(50).cpu, cpu, "an older time, and none, change nothing");
});

test("a chart of one heartbeat is drawn", () => {
  const history = new History();
  history.add(START, 40, 60, 15_000);
  assert.equal(history.paths(START, 60_000, 15_000, 300).cpu, "M275.0 60.0h25.0");
});

test("an agent with a slow rhythm has a line without holes while it is in time", () => {
  const history = new History();
  for (const second of [0, 30, 60]) history.add(START + second * 1_000, second, 0, 77_000);
  const { cpu } = history.paths(START + 60_000, 70_000, 77_000, 70);
  assert.equal(cpu, "M5.0 100.0h5.0L20.0 100.0L30.0 100.0L40.0 70.0L50.0 70.0L60.0 70.0L70.0 40.0");
});

test("a history is of a quarter of an hour, however long it gets", () => {
  const history = new History();
  for (let second = 0; second <= 3_600; second += 1) history.add(START + second * 1_000, second % 101, 0, 15_000);
  const { cpu } = history.paths(START + 3_600_000, HISTORY_MS, 15_000, 300);
  assert.equal(cpu.match(/[ML]/g).length, HISTORY_MS / STEP_MS);
  assert.equal(history.since, START + 3_600_000 - HISTORY_MS + STEP_MS);
});

test("what the server remembers is put before what was heard, which stays", () => {
  const history = new History();
  history.add(START + 50_000, 10, 10, 15_000);
  history.fill({ end: START + 60_000, stepMs: STEP_MS, cpu: [null, 20, 30, null, 40, 99], memory: [null, 1, 2, null, 3, 99] });
  const { cpu } = history.paths(START + 50_000, 60_000, 15_000, 60);
  assert.equal(cpu, "M15.0 80.0h5.0L30.0 70.0M45.0 60.0h5.0L60.0 90.0");
  assert.equal(history.since, START + 10_000);

  const departed = new History();
  departed.fill({ end: START + 60_000, stepMs: STEP_MS, cpu: [1, 2, 3, null, null, null], memory: [1, 2, 3, null, null, null] });
  assert.equal(departed.paths(START + 50_000, 60_000, 15_000, 60).cpu.match(/[ML]/g).length, 3, "of one that is gone too");

  const unknown = new History();
  unknown.fill({ end: START + 60_000, stepMs: STEP_MS, cpu: [null, null], memory: [null, null] });
  assert.deepEqual([unknown.since, unknown.paths(START, 60_000, 15_000, 60).cpu], [Infinity, ""]);
});

test("whatever steps a server has, a history is of ours", () => {
  const history = new History();
  history.fill({ end: START + 900_000, stepMs: 1_000, cpu: new Array(900).fill(50), memory: new Array(900).fill(50) });
  assert.equal(history.paths(START + 899_000, HISTORY_MS, 15_000, 300).cpu.match(/[ML]/g).length, 90);
  history.fill({ end: 0, stepMs: STEP_MS, cpu: [1], memory: [1] });
  assert.equal(history.since, START);
});

test("a chart is drawn anew with a heartbeat, or a step, and not each second", () => {
  const history = new History();
  history.add(START, 1, 1, 15_000);
  const before = history.stateAt(START, HISTORY_MS);
  assert.equal(history.stateAt(START + 9_999, HISTORY_MS), before);
  assert.notEqual(history.stateAt(START + 10_000, HISTORY_MS), before);
  history.add(START + 1, 1, 1, 15_000);
  assert.notEqual(history.stateAt(START, HISTORY_MS), before);
});

function entryOf(agentId, second = 0) {
  const entry = new AgentEntry(agentId);
  const time = new Date(START + second * 1_000).toISOString();
  entry.take({ agent_id: agentId, agent_name: agentId, cpu_usage: 5, memory_usage: 5, running_tasks: [], last_update_time: time, status: "idle", interval_ms: null });
  return entry;
}

const SERIES = { end: START + 10_000, stepMs: STEP_MS };

/** A server that keeps histories: what it was asked, and its answers one by one. */
function server() {
  const asked = [];
  const waiting = [];
  const fetch = (poolId, { agents }) => {
    asked.push(agents);
    return new Promise((resolve, reject) => waiting.push({ agents, resolve, reject }));
  };
  const answer = async () => {
    const { agents, resolve } = waiting.shift();
    resolve({ ...SERIES, agents: new Map(agents.map((id) => [id, { cpu: [1, 2], memory: [1, 2] }])) });
    await Promise.resolve();
  };
  const refuse = async (status) => {
    waiting.shift().reject(new Refusal(status, "no"));
    await Promise.resolve();
  };
  return { asked, fetch, answer, refuse };
}

/** Lets what was promised happen. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

test("each agent in sight is asked for once, a hundred at a time, after a rest", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { asked, fetch, answer } = server();
  const filled = [];
  const trends = new Trends("pool", (entries) => filled.push(entries.length), fetch);
  const passed = entryOf("passed");
  trends.want([passed]);
  context.mock.timers.tick(100);
  const entries = Array.from({ length: 150 }, (_, index) => entryOf(`agent-${index}`));
  trends.want(entries);
  context.mock.timers.tick(149);
  assert.deepEqual(asked, [], "while it scrolls");
  context.mock.timers.tick(1);
  assert.deepEqual(asked, [entries.slice(0, 100).map(({ agentId }) => agentId)]);
  trends.want(entries);
  context.mock.timers.tick(10_000);
  assert.equal(asked.length, 1, "one question at a time");
  await answer();
  await settle();
  context.mock.timers.tick(0);
  assert.deepEqual(asked[1], entries.slice(100).map(({ agentId }) => agentId));
  await answer();
  await settle();
  trends.want(entries);
  context.mock.timers.tick(10_000);
  assert.equal(asked.length, 2);
  assert.deepEqual(filled, [100, 50]);
  assert.equal(passed.history.isAsked, false);
  assert.equal(trends.windowMs(START), 30_000);
});

test("a question that failed is asked again later, and never where there is no history", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { asked, fetch, refuse } = server();
  const trends = new Trends("pool", () => {}, fetch);
  const entries = [entryOf("agent")];
  trends.want(entries);
  context.mock.timers.tick(150);
  await refuse(503);
  await settle();
  context.mock.timers.tick(5_000);
  trends.want([...entries, entryOf("other")]);
  context.mock.timers.tick(4_999);
  assert.equal(asked.length, 1, "whoever scrolls meanwhile does not make it sooner");
  context.mock.timers.tick(1);
  context.mock.timers.tick(0);
  assert.equal(asked.length, 2);
  await refuse(404);
  await settle();
  trends.want(entries);
  context.mock.timers.tick(60_000);
  assert.equal(asked.length, 2);
});

test("all charts span what the oldest of them knows", () => {
  const trends = new Trends("pool", () => {}, () => new Promise(() => {}));
  const now = START + 400_000;
  trends.want([entryOf("old", 0), entryOf("new", 390)]);
  assert.equal(trends.windowMs(now), 400_000);
});

test("a question is short enough for the server, however long the ids are", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { asked, fetch, answer } = server();
  const trends = new Trends("pool", () => {}, fetch);
  const entries = Array.from({ length: 100 }, (_, index) => entryOf(String(index).padStart(128, "x")));
  trends.want(entries);
  context.mock.timers.tick(150);
  while (asked.flat().length < entries.length) {
    await answer();
    await settle();
    context.mock.timers.tick(0);
  }
  assert.deepEqual(asked.map((ids) => ids.length), [31, 31, 31, 7]);
  assert.deepEqual(asked.flat(), entries.map(({ agentId }) => agentId), "each once, in their order");
});

test("after a snapshot, what was not heard is open for what the server remembers", () => {
  const entry = entryOf("agent");
  const trends = new Trends("pool", () => {}, () => new Promise(() => {}));
  trends.want([entry]);
  const timeOf = (second) => new Date(START + second * 1_000).toISOString();
  const heard = (second) => ({ ...entry.metrics, cpu_usage: 50, last_update_time: timeOf(second) });
  entry.take(heard(40), null, { isSnapshot: true });
  entry.history.fill({ end: START + 50_000, stepMs: STEP_MS, cpu: [5, 10, 20, 30, 40], memory: [5, 5, 5, 5, 5] });
  const line = () => entry.history.paths(START + 60_000, 70_000, -Infinity, 70).cpu;
  assert.equal(line(), "M5.0 95.0h5.0L20.0 90.0L30.0 80.0L40.0 70.0L50.0 50.0");
  // What comes next was preceded by nothing else: the agent is in time.
  entry.take(heard(60));
  assert.equal(line(), "M5.0 95.0h5.0L20.0 90.0L30.0 80.0L40.0 70.0L50.0 50.0L60.0 50.0L70.0 50.0");
});
