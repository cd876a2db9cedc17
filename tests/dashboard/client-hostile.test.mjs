// What no server should send. Nothing of it may throw (the test runner fails a test that leaves an
// exception behind), nor get into the state in a type that the contract does not have.

import assert from "node:assert/strict";
import test from "node:test";

import { agent, at, departure, house, mulberry, task } from "./client-house.mjs";

/** In the place of whatever the contract has there. `undefined` takes the member away. */
const WRONG = [
  undefined,
  null,
  true,
  0,
  -1,
  1.5,
  2 ** 60,
  "",
  "7",
  "__proto__",
  "+275760-09-13T00:00:00Z",
  [],
  [null],
  [[]],
  {},
  { toString: 1, length: 3 },
  { then: 1 },
];

const finished = { ...task(9), title: "t", finished_at: at(0), exit_code: 1 };
/** With every optional member. */
const full = (agent_id, cpu_usage) => ({
  ...agent(agent_id, cpu_usage, [{ ...task(1), title: "t", url: "https://ci.example/1" }]),
  capacity: 4,
  disk_usage: 97.5,
  labels: { os: "linux" },
  version: "1",
  note: "n",
  finished_tasks: [finished],
  recent_tasks: [finished, { ...finished, exit_code: null }],
});
const MESSAGES = [
  {
    type: "initial_metrics",
    metrics: [full("a", 1), agent("b")],
    departed: [departure("d", { running_tasks: [task(1)] }), departure("e")],
    departures: { lost: 1, goodbyes: 1 },
  },
  { type: "metrics_update", metrics: full("a", 5) },
  { type: "metrics_batch", metrics: [full("a", 6), agent("b")], offline: [departure("c"), departure("f", { reason: "timeout" })] },
  { type: "agent_offline", reason: "timeout", metrics: { agent_id: "a", status: "offline" } },
  { type: "keepalive" },
].map((message) => ({ ...message, pool_id: "p", seq: 11, epoch: "e1", server_id: "s", server_time: at(0) }));

/** Every member of `value`, however deep, as a path to it. */
function* paths(value, path = []) {
  if (path.length > 0) yield path;
  if (typeof value !== "object" || value === null) return;
  for (const key of Object.keys(value)) yield* paths(value[key], [...path, key]);
}

function withWrong(message, path, wrong) {
  const copy = structuredClone(message);
  const parent = path.slice(0, -1).reduce((value, key) => value?.[key], copy);
  if (typeof parent === "object" && parent !== null) parent[path.at(-1)] = wrong;
  return copy;
}

const isString = (value) => typeof value === "string";
function assertTasks(tasks) {
  assert.ok(Array.isArray(tasks));
  for (const { task_id, title = "", url = "https://", ...texts } of tasks) {
    assert.ok(isString(task_id) || Number.isFinite(task_id));
    assert.ok([texts.task_type, texts.workspace_id, texts.started_at, title].every(isString));
    assert.match(url, /^https?:/);
  }
}

function assertOptional({ capacity = 0, disk_usage = 0, labels = {}, version = "", note = "", finished_tasks = [], recent_tasks = [] }) {
  assert.ok(Number.isSafeInteger(capacity) && capacity >= 0 && Number.isFinite(disk_usage));
  assert.ok(typeof labels === "object" && !Array.isArray(labels) && Object.values(labels).every(isString));
  assert.ok([version, note].every(isString));
  for (const list of [finished_tasks, recent_tasks]) {
    assertTasks(list);
    for (const { finished_at, exit_code } of list) {
      assert.ok(Number.isFinite(Date.parse(finished_at)) && (exit_code === null || Number.isSafeInteger(exit_code)));
    }
  }
}

/** Everything held is of the types that metrics-client.d.ts promises. */
function assertSound({ agents, departed, departures, epoch }, what) {
  try {
    for (const [id, held] of agents) {
      assert.ok(isString(id) && id !== "" && id === held.agent_id && !departed.has(id));
      assert.ok([held.agent_name, held.status, held.last_update_time].every(isString));
      assert.ok(Number.isFinite(held.cpu_usage) && Number.isFinite(held.memory_usage));
      assert.ok(held.interval_ms === null || Number.isFinite(held.interval_ms));
      assertTasks(held.running_tasks);
      assertOptional(held);
    }
    for (const [id, held] of departed) {
      assert.ok(isString(id) && id !== "" && id === held.agent_id && isString(held.agent_name));
      assert.ok(["goodbye", "timeout"].includes(held.reason) && Number.isFinite(Date.parse(held.at)));
      assertTasks(held.running_tasks);
    }
    assert.ok([departures.lost, departures.goodbyes].every((count) => Number.isSafeInteger(count) && count >= 0));
    assert.ok(isString(epoch));
  } catch (error) {
    throw new Error(what, { cause: error });
  }
}

/** From here on a true server is understood as ever. */
function assertRecovers({ feed, newest }, what) {
  newest().snapshot(20, [agent("x", 1), agent("y", 1)], { departed: [departure("z")] });
  newest().update(21, agent("x", 2));
  newest().offline(22, "y");
  assert.deepEqual([...feed.agents], [["x", agent("x", 2)]], what);
  assert.deepEqual([...feed.departed.keys()], ["z", "y"], what);
  assert.equal(feed.connection.state, "live", what);
}

test("each member wrong in every way, before and after the first snapshot", () => {
  let tried = 0;
  for (const message of MESSAGES) {
    for (const path of paths(message)) {
      for (const wrong of WRONG) {
        const what = `${message.type} ${path.join(".")} = ${JSON.stringify(wrong)}`;
        for (const early of [true, false]) {
          const world = house();
          world.newest().open();
          if (!early) world.newest().snapshot(10, [agent("a", 1, [task(1)]), agent("c")]);
          world.newest().say(withWrong(message, path, wrong));
          if (!early || world.feed.epoch !== null) assertSound(world.feed, what);
          assertRecovers(world, what);
          tried += 1;
        }
      }
    }
  }
  assert.ok(tried > 1_000, `${tried} messages tried`);
});

test("many wrongs at once, among messages that are right", () => {
  const places = MESSAGES.map((message) => [...paths(message)]);
  for (let seed = 1; seed <= 300; seed += 1) {
    const random = mulberry(seed);
    const pick = (n) => Math.floor(random() * n);
    const world = house();
    world.join(10, [agent("a"), agent("c")]);
    for (let step = 0; step < 60; step += 1) {
      const kind = pick(MESSAGES.length);
      let message = { ...MESSAGES[kind], seq: 11 + step };
      for (let wrongs = pick(4); wrongs > 0; wrongs -= 1) {
        message = withWrong(message, places[kind][pick(places[kind].length)], WRONG[pick(WRONG.length)]);
      }
      world.newest().say(message);
      assertSound(world.feed, `seed ${seed}, step ${step}`);
    }
    world.newest().snapshot(0);
    assertRecovers(world, `seed ${seed}`);
  }
});

test("one agent that is wrong costs the others nothing", () => {
  const { feed, join, newest } = house();
  join(1, [agent("a"), null, { agent_id: "b" }, agent("c")], { departed: [null, departure("d"), { agent_id: "e" }] });
  assert.deepEqual([...feed.agents.keys()], ["a", "c"]);
  assert.deepEqual([...feed.departed.keys()], ["d"]);
  newest().update(2, { ...agent("a", 50), running_tasks: null });
  assert.equal(feed.agents.get("a").cpu_usage, 1, "what was true stays");
  newest().update(2, agent("a", 50));
  assert.equal(feed.agents.get("a").cpu_usage, 50, "and a wrong message uses up no number");
});

test("an optional member that is wrong costs its agent nothing else", () => {
  const right = full("a");
  for (const name of ["capacity", "disk_usage", "labels", "version", "note", "finished_tasks", "recent_tasks"]) {
    const { [name]: _, ...rest } = right;
    for (const wrong of [null, true, [1], { os: 7 }]) {
      const { feed, join } = house();
      join(1, [{ ...right, [name]: wrong }]);
      const expected = Array.isArray(wrong) && name.endsWith("_tasks") ? { ...rest, [name]: [] } : rest;
      assert.deepEqual(feed.agents.get("a"), expected, `${name} = ${JSON.stringify(wrong)}`);
    }
  }
});

test("a task's address leads to the web, or is none", () => {
  const { feed, join, newest } = house();
  const urls = ["javascript:alert(1)", " https://a", "data:text/html,x", "//a", "/a", "https:/a", "https", 7, "http://a", "HTTPS://a/b?c"];
  const tasks = urls.map((url) => ({ ...task(1), url, title: "t" }));
  const kept = [...Array(8).fill(undefined), "http://a", "HTTPS://a/b?c"];
  const held = (list) => list.map(({ url }) => url);
  const ended = tasks.map((one) => ({ ...one, finished_at: at(0), exit_code: null }));
  join(1, [{ ...agent("a", 1, tasks), finished_tasks: ended }], { departed: [departure("d", { running_tasks: tasks })] });
  const { running_tasks, finished_tasks } = feed.agents.get("a");
  for (const list of [running_tasks, finished_tasks, feed.departed.get("d").running_tasks]) assert.deepEqual(held(list), kept);
  newest().offline(2, "a");
  assert.deepEqual(held(feed.departed.get("a").running_tasks), kept);
});

test("finished tasks that are wrong are left out one by one", () => {
  const { feed, join } = house();
  const wrongs = [null, [], task(1), { ...finished, finished_at: "soon" }, { ...finished, exit_code: "0" }, { ...finished, task_type: 1 }];
  join(1, [{ ...agent("a"), recent_tasks: [...wrongs, finished, { ...finished, exit_code: null }] }]);
  assert.deepEqual(feed.agents.get("a").recent_tasks, [finished, { ...finished, exit_code: null }]);
});

test("ids that are names of JavaScript's own are ids like any other", () => {
  const ids = ["__proto__", "constructor", "prototype", "hasOwnProperty", "toString", "valueOf", "size"];
  const { feed, join, newest } = house();
  join(0);
  ids.forEach((id, index) => newest().update(index + 1, agent(id, index)));
  assert.deepEqual([...feed.agents.keys()], ids);
  assert.equal(feed.agents.get("__proto__").cpu_usage, 0);
  ids.forEach((id, index) => newest().offline(index + 20, id));
  assert.deepEqual([[...feed.agents.keys()], [...feed.departed.keys()]], [[], ids]);
  // A member of that name stays a member.
  const metrics = JSON.stringify(agent("a")).replace("{", '{"__proto__":{"hacked":true},');
  newest().raw(`{"type":"metrics_update","pool_id":"p","seq":40,"__proto__":{"pool_id":"q"},"metrics":${metrics}}`);
  assert.equal(feed.agents.get("a").hacked, undefined);
  assert.equal({}.hacked, undefined);
});

test("what is no message is none", () => {
  const world = house();
  world.join(0, [agent("a")]);
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  for (const data of ["", "{", "null", "5", '"text"', "[]", "{}", deep, undefined, null, 7, new ArrayBuffer(8), new Blob(["{}"])]) {
    world.newest().raw(data);
  }
  assert.deepEqual([...world.feed.agents.keys()], ["a"]);
  assert.equal(world.changes.length, 1);
  assertRecovers(world, "after rubbish");
});
