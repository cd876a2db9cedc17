// Batches: what one message brings, in which order it counts, and what is told of it. What is held
// after any sequence of them is in client-state.test.mjs.

import assert from "node:assert/strict";
import test from "node:test";

import { MAX_BATCH_MS, MAX_DEPARTED, MIN_BATCH_MS, PoolFeed } from "../../src/dashboard/metrics-client.js";
import { agent, at, departure, house, task } from "./client-house.mjs";

const batched = () => house({ make: (options) => new PoolFeed({ poolId: "p", batchMs: 250, ...options }) });

test("batches are asked for with the period, and only with one that the server allows", () => {
  assert.equal(batched().newest().url, "ws://h:1/ws/agent-pools/p/metrics?batch_ms=250");
  const make = (batchMs) => house({ make: (options) => new PoolFeed({ poolId: "p", token: "t", batchMs, ...options }) });
  assert.equal(make(MAX_BATCH_MS).newest().url, "ws://h:1/ws/agent-pools/p/metrics?batch_ms=5000&token=t");
  assert.equal(make(MIN_BATCH_MS).newest().url, "ws://h:1/ws/agent-pools/p/metrics?batch_ms=50&token=t");
  for (const wrong of [MIN_BATCH_MS - 1, MAX_BATCH_MS + 1, 0, 99.5, NaN, "250", null]) assert.throws(() => make(wrong), RangeError);
});

test("one message is one change, which names those that came and those that went", () => {
  const { feed, join, newest, changes } = batched();
  join(5, [agent("a"), agent("b"), agent("c")]);
  const gone = departure("b", { at: at(7), running_tasks: [task(1)] });
  newest().batch(9, [agent("a", 50), agent("d", 60)], [gone]);
  assert.deepEqual([...feed.agents].map(([id, { cpu_usage }]) => [id, cpu_usage]), [["a", 50], ["c", 1], ["d", 60]]);
  assert.deepEqual([...feed.departed], [["b", gone]]);
  assert.deepEqual(feed.departures, { lost: 1, goodbyes: 0 });
  assert.deepEqual(changes.slice(1), [{ kind: "batch", agentIds: ["a", "d"], departedIds: ["b"] }]);
});

test("who departs and returns within one batch is there, and has departed once more", () => {
  const { feed, join, newest, changes } = batched();
  join(5, [agent("a")]);
  newest().batch(9, [agent("a", 9), agent("new", 9)], [departure("new"), departure("a")]);
  assert.deepEqual([[...feed.agents.keys()], feed.departed.size], [["a", "new"], 0]);
  assert.equal(feed.departures.goodbyes, 2);
  assert.deepEqual(changes.at(-1), { kind: "batch", agentIds: ["a", "new"], departedIds: [] });
  newest().batch(12, [], [departure("a", { at: at(2), reason: "timeout" }), departure("a", { at: at(1) })]);
  assert.equal(feed.departed.get("a").at, at(2), "twice: the newest counts");
  assert.deepEqual(feed.departures, { lost: 1, goodbyes: 3 });
  assert.deepEqual(changes.at(-1), { kind: "batch", agentIds: [], departedIds: ["a"] });
});

test("departures of one batch are kept in the order of time, as many as ever", () => {
  const { feed, join, newest } = batched();
  join(0);
  const list = Array.from({ length: MAX_DEPARTED + 10 }, (_, n) => departure(`a${n}`, { at: at(n) }));
  newest().batch(1, [], list.toReversed());
  assert.deepEqual([...feed.departed.keys()], list.slice(10).map(({ agent_id }) => agent_id));
  assert.equal(feed.departures.goodbyes, MAX_DEPARTED + 10);
  // Of one millisecond: a batch says the oldest first.
  const together = list.map(({ agent_id }) => departure(`${agent_id}-b`, { at: at(99) }));
  newest().batch(2, [], together);
  assert.deepEqual([...feed.departed.keys()], together.slice(10).map(({ agent_id }) => agent_id));
});

test("a batch is news for those agents of which nothing newer is held, and for nobody else", () => {
  const { feed, join, newest, changes } = batched();
  join(10, [agent("a"), agent("b")]);
  newest().batch(10, [agent("a", 7)], [departure("b")]);
  assert.equal(changes.length, 1, "the snapshot holds it");
  newest().update(20, agent("a", 20));
  newest().offline(21, "b");
  newest().batch(15, [agent("a", 15), agent("b", 15), agent("c", 15)], []);
  assert.deepEqual(changes.at(-1), { kind: "batch", agentIds: ["c"], departedIds: [] });
  newest().batch(15, [agent("c", 16)], [departure("a")]);
  newest().batch(16, [], []);
  newest().batch(17);
  assert.equal(changes.length, 4, "nothing new is no change");
  assert.deepEqual([...feed.agents].map(([id, { cpu_usage }]) => [id, cpu_usage]), [["a", 20], ["c", 15]]);
});

test("what is wrong in a batch costs the rest nothing", () => {
  const { feed, join, newest, changes } = batched();
  join(1, [agent("a"), agent("b")]);
  const wrong = [null, {}, [], "a", { ...agent("a"), cpu_usage: "9" }, { ...agent("b"), running_tasks: {} }];
  newest().batch(2, [...wrong, agent("c", 2)], [null, {}, { ...departure("a"), at: "soon" }, departure("b")]);
  assert.deepEqual(changes.at(-1), { kind: "batch", agentIds: ["c"], departedIds: ["b"] });
  newest().batch(2, [agent("a", 2)]);
  assert.equal(feed.agents.get("a").cpu_usage, 2, "a wrong one uses up no number");
  newest().say({ type: "metrics_batch", seq: 3, metrics: [agent("a", 3)] });
  newest().say({ type: "metrics_batch", seq: 4, metrics: "all", offline: [departure("a")] });
  assert.deepEqual(changes.slice(-2).map(({ agentIds, departedIds }) => [agentIds, departedIds]), [[["a"], []], [[], ["a"]]]);
});

test("a batch before the snapshot is none, and one after a silence ends it", () => {
  const { feed, newest, clock } = batched();
  newest().open();
  newest().batch(1, [agent("early")]);
  newest().snapshot(1);
  assert.equal(feed.agents.size, 0);
  clock.forward(12_000);
  assert.equal(feed.connection.state, "silent");
  newest().batch(2, [agent("a")]);
  assert.equal(feed.connection.state, "live");
});
