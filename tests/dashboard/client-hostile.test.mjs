// What no server should send. Nothing of it may throw (the test runner fails a test that leaves an
// exception behind), nor get into the state in a type that the contract does not have.

import assert from "node:assert/strict";
import test from "node:test";

import { agent, at, house, mulberry, task } from "./client-house.mjs";

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

const departure = (agent_id) => ({ agent_id, agent_name: "n", reason: "goodbye", at: at(0), running_tasks: [task(1)] });
const MESSAGES = [
  { type: "initial_metrics", metrics: [agent("a", 1, [task(1)]), agent("b")], departed: [departure("d"), departure("e")] },
  { type: "metrics_update", metrics: agent("a", 5, [task(2)]) },
  { type: "agent_offline", reason: "timeout", metrics: { agent_id: "a", status: "offline" } },
  { type: "keepalive" },
].map((message) => ({ ...message, pool_id: "p", seq: 11, epoch: "e1", server_time: at(0) }));

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
  for (const { task_id, ...texts } of tasks) {
    assert.ok(isString(task_id) || Number.isFinite(task_id));
    assert.ok([texts.task_type, texts.workspace_id, texts.started_at].every(isString));
  }
}

/** Everything held is of the types that metrics-client.d.ts promises. */
function assertSound({ agents, departed, epoch, serverNow }, what) {
  try {
    for (const [id, held] of agents) {
      assert.ok(isString(id) && id !== "" && id === held.agent_id && !departed.has(id));
      assert.ok([held.agent_name, held.status, held.last_update_time].every(isString));
      assert.ok(Number.isFinite(held.cpu_usage) && Number.isFinite(held.memory_usage));
      assert.ok(held.interval_ms === null || Number.isFinite(held.interval_ms));
      assertTasks(held.running_tasks);
    }
    for (const [id, held] of departed) {
      assert.ok(isString(id) && id !== "" && id === held.agent_id && isString(held.agent_name));
      assert.ok(["goodbye", "timeout"].includes(held.reason) && Number.isFinite(Date.parse(held.at)));
      assertTasks(held.running_tasks);
    }
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
