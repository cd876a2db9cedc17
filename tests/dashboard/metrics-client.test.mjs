// The client module alone, under Node's own test runner: `node --test tests/dashboard/`.
// Time, chance, sockets and HTTP are the test's own.

import assert from "node:assert/strict";
import test from "node:test";

import { LIVE_WINDOW_MS, MAX_DEPARTED, PoolFeed, RETRY_LAST_MS, retryDelay } from "../../src/dashboard/metrics-client.js";

const START = Date.parse("2025-01-07T10:35:00.000Z");

/** A clock that moves when told to, and fires what is due on the way. */
class Clock {
  time = 0;
  wallSkew = -3_600_000;
  timers = new Map();
  last = 0;
  now = () => this.time;
  wall = () => START + this.wallSkew + this.time;
  setTimeout = (action, delay) => (this.timers.set(++this.last, { at: this.time + delay, action }), this.last);
  clearTimeout = (timer) => this.timers.delete(timer);

  forward(ms) {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      this.timers.delete(due[0]);
      this.time = due[1].at;
      due[1].action();
    }
    this.time = end;
  }
}

/** A pool's feed with a server that is the test. */
function house({ answers = 200 } = {}) {
  const clock = new Clock();
  const sockets = [];
  class WebSocket extends EventTarget {
    constructor(url) {
      super();
      this.url = url;
      this.closed = false;
      sockets.push(this);
    }
    close() {
      this.closed = true;
    }
    open() {
      this.dispatchEvent(new Event("open"));
    }
    end(code) {
      this.dispatchEvent(Object.assign(new Event("close"), { code }));
    }
    say(message) {
      const whole = { pool_id: "p", epoch: "e1", server_time: at(clock.time), ...message };
      this.dispatchEvent(Object.assign(new Event("message"), { data: JSON.stringify(whole) }));
    }
    snapshot(seq, metrics = [], more = {}) {
      this.say({ type: "initial_metrics", seq, metrics, departed: [], ...more });
    }
    update(seq, metrics) {
      this.say({ type: "metrics_update", seq, metrics });
    }
    offline(seq, agent_id, reason = "timeout") {
      this.say({ type: "agent_offline", seq, reason, metrics: { agent_id, status: "offline" } });
    }
  }
  const world = { clock, sockets, answers };
  const fetch = async (_, { method }) => {
    if (world.answers === null) throw new TypeError("no server");
    const detail = `refused with ${world.answers}`;
    return new Response(method === "HEAD" ? null : JSON.stringify({ detail }), { status: world.answers });
  };
  world.feed = new PoolFeed({ poolId: "p", base: "http://h:1", clock, random: () => 1, WebSocket, fetch });
  world.changes = [];
  world.feed.addEventListener("change", (event) => world.changes.push(event.detail));
  world.newest = () => sockets.at(-1);
  world.join = (...snapshot) => {
    world.newest().open();
    world.newest().snapshot(...snapshot);
  };
  world.feed.start();
  return world;
}

const at = (ms) => new Date(START + ms).toISOString();
const agent = (agent_id, cpu_usage = 1, running_tasks = []) => ({
  agent_id,
  agent_name: `name of ${agent_id}`,
  cpu_usage,
  memory_usage: 2,
  running_tasks,
  last_update_time: at(0),
  status: "idle",
  interval_ms: null,
});
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("the snapshot makes it live, updates and departures follow", () => {
  const { feed, join, newest, changes } = house();
  assert.equal(newest().url, "ws://h:1/ws/agent-pools/p/metrics");
  assert.equal(feed.connection.state, "connecting");
  join(5, [agent("a"), agent("b", 3, [{ task_id: 7 }])]);
  assert.equal(feed.connection.state, "live");
  newest().update(6, agent("a", 50));
  assert.equal(feed.agents.get("a").cpu_usage, 50);
  newest().offline(7, "b");
  assert.deepEqual([...feed.agents.keys()], ["a"]);
  assert.deepEqual(feed.departed.get("b"), {
    agent_id: "b",
    agent_name: "name of b",
    reason: "timeout",
    at: at(0),
    running_tasks: [{ task_id: 7 }],
  });
  newest().update(8, agent("b"));
  assert.equal(feed.departed.size, 0);
  assert.deepEqual(changes.map(({ kind }) => kind), ["snapshot", "update", "departed", "update"]);
});

test("what is older than the snapshot or than what we have of the agent changes nothing", () => {
  const { feed, join, newest, changes } = house();
  join(10, [agent("a", 10), agent("b", 10)]);
  newest().update(10, agent("a", 1));
  newest().offline(9, "a");
  newest().update(15, agent("a", 15));
  newest().update(14, agent("a", 14));
  assert.equal(feed.agents.get("a").cpu_usage, 15);
  newest().update(12, agent("b", 12));
  assert.equal(feed.agents.get("b").cpu_usage, 12, "another agent's lower number is news all the same");
  newest().offline(20, "a");
  newest().update(19, agent("a", 19));
  assert.equal(feed.agents.has("a"), false);
  assert.equal(changes.length, 4);
});

test("a snapshot replaces everything, and another epoch means a restart", () => {
  const { feed, join, newest, changes, clock } = house();
  join(100, [agent("a"), agent("b")]);
  newest().offline(101, "b");
  newest().snapshot(3, [agent("c")]);
  assert.deepEqual([...feed.agents.keys()], ["c"]);
  assert.equal(feed.departed.size, 0);
  newest().update(4, agent("c", 44));
  assert.equal(feed.agents.get("c").cpu_usage, 44);
  newest().end(1001);
  clock.forward(RETRY_LAST_MS);
  join(0, [], { epoch: "e2", departed: [{ agent_id: "d", agent_name: "d", reason: "goodbye", at: at(0), running_tasks: [] }] });
  assert.equal(feed.agents.size, 0);
  assert.deepEqual([...feed.departed.keys()], ["d"]);
  assert.deepEqual(changes.filter(({ kind }) => kind === "snapshot").map(({ restarted }) => restarted), [false, false, true]);
});

test("strangers' messages are ignored", () => {
  const { feed, join, newest, changes } = house();
  newest().open();
  newest().update(1, agent("early"));
  newest().snapshot(1, []);
  newest().say({ type: "metrics_update", seq: 2, pool_id: "q", metrics: agent("x") });
  newest().say({ type: "news", seq: 3 });
  newest().dispatchEvent(Object.assign(new Event("message"), { data: "{" }));
  newest().dispatchEvent(Object.assign(new Event("message"), { data: "null" }));
  assert.equal(feed.agents.size, 0);
  assert.equal(changes.length, 1);
});

test("task ids keep all their digits, and text that looks like one stays text", () => {
  const { feed, newest } = house();
  newest().open();
  const agents = JSON.stringify([agent("a", 1, [{ task_id: 0, task_type: '"task_id":18446744073709551615' }])]);
  const metrics = agents.replace('"task_id":0', '"task_id":18446744073709551615');
  const data = `{"type":"initial_metrics","pool_id":"p","metrics":${metrics}}`;
  newest().dispatchEvent(Object.assign(new Event("message"), { data }));
  const [task] = feed.agents.get("a").running_tasks;
  assert.deepEqual(task, { task_id: "18446744073709551615", task_type: '"task_id":18446744073709551615' });
});

test("45 s without a word is the end of live, and a keepalive is a word", () => {
  const { feed, join, newest, clock, sockets } = house();
  join(0);
  clock.forward(LIVE_WINDOW_MS - 1);
  newest().say({ type: "keepalive", seq: 0 });
  clock.forward(LIVE_WINDOW_MS - 1);
  assert.equal(feed.connection.state, "live");
  clock.forward(1);
  assert.equal(feed.connection.state, "waiting");
  assert.equal(sockets[0].closed, true);
  assert.equal(feed.retryInMs(), 500);
  clock.forward(500);
  assert.equal(sockets.length, 2);
});

test("waits double from 0.5 s to 30 s, and start anew after a steady connection", async () => {
  const world = house({ answers: null });
  const waits = [];
  for (let attempt = 0; attempt < 9; attempt += 1) {
    world.newest().end(1006);
    await settled();
    waits.push(world.feed.retryInMs());
    world.clock.forward(world.feed.retryInMs());
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
  world.join(0);
  world.newest().end(1006);
  assert.equal(world.feed.retryInMs(), 30000, "a connection that fell at once proves nothing");
  world.clock.forward(30000);
  world.join(0);
  world.clock.forward(10_000);
  world.newest().end(1006);
  assert.equal(world.feed.retryInMs(), 500);
  for (let attempt = 0; attempt < 70; attempt += 1) {
    assert.ok(retryDelay(attempt) >= 500 && retryDelay(attempt) <= RETRY_LAST_MS);
  }
});

test("an attempt without an answer is given up", () => {
  const { feed, clock, sockets } = house();
  clock.forward(10_000);
  assert.equal(feed.connection.state, "waiting");
  assert.equal(sockets[0].closed, true);
});

test("a refusal says why; 401 waits for a person, the others look again slowly", async () => {
  const world = house({ answers: 404 });
  world.newest().end(1006);
  await settled();
  const { state, status, reason } = world.feed.connection;
  assert.deepEqual({ state, status, reason }, { state: "refused", status: 404, reason: "refused with 404" });
  assert.equal(world.feed.retryInMs(), RETRY_LAST_MS);
  world.answers = 401;
  world.clock.forward(RETRY_LAST_MS);
  world.newest().end(1006);
  await settled();
  assert.equal(world.feed.connection.status, 401);
  world.clock.forward(3_600_000);
  world.feed.wake();
  assert.equal(world.sockets.length, 2);
  world.feed.reconnect();
  world.join(0);
  assert.equal(world.feed.connection.state, "live");
});

test("a changed network and a woken tab act at once", () => {
  const { feed, join, newest, clock, sockets } = house();
  join(0);
  newest().end(1006);
  feed.wake();
  assert.equal(sockets.length, 2);
  join(0);
  feed.wake();
  assert.equal(sockets.length, 2, "a live connection stays when the tab comes back");
  clock.wallSkew += LIVE_WINDOW_MS;
  feed.wake();
  assert.equal(sockets.length, 3, "the machine slept: only the wall clock saw it");
  join(0);
  feed.wake({ networkChanged: true });
  assert.equal(sockets.length, 4);
});

test("ages go by the server's clock, and stand still while we are away", () => {
  const { feed, join, newest, clock } = house();
  assert.equal(feed.asOf(), null);
  join(0);
  clock.forward(2_000);
  assert.equal(feed.asOf(), START + 2_000);
  newest().say({ type: "keepalive", server_time: at(1_000) });
  assert.ok(feed.serverNow() > START + 1_900, "a delayed message barely moves the clock");
  clock.forward(3_000);
  newest().say({ type: "keepalive" });
  assert.equal(feed.serverNow(), START + 5_000, "a prompt one sets it right");
  newest().say({ type: "keepalive", server_time: at(-7_200_000) });
  assert.equal(feed.serverNow(), START - 7_200_000, "a step of the server's clock is followed");
  newest().end(1006);
  const frozen = feed.asOf();
  clock.forward(400);
  assert.equal(feed.asOf(), frozen);
});

test("departures are as many as the server keeps, the newest", () => {
  const { feed, join, newest } = house();
  join(0);
  for (let seq = 1; seq <= MAX_DEPARTED + 5; seq += 1) newest().offline(seq, `a${seq}`);
  assert.equal(feed.departed.size, MAX_DEPARTED);
  assert.equal(feed.departed.has("a5"), false);
  assert.equal(feed.departed.has("a6"), true);
});

test("stopped means stopped", () => {
  const { feed, join, newest, clock, sockets, changes } = house();
  join(0);
  feed.stop();
  newest().update(1, agent("a"));
  newest().end(1006);
  clock.forward(3_600_000);
  feed.wake({ networkChanged: true });
  assert.equal(feed.connection.state, "stopped");
  assert.equal(sockets.length, 1);
  assert.equal(changes.length, 1);
});

test("whatever the order, what is held equals the newest of each agent", () => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const random = mulberry(seed);
    const pick = (n) => Math.floor(random() * n);
    const { feed, join, newest } = house();
    const truth = new Map();
    const pending = new Map();
    let seq = 0;
    join(seq);
    for (let step = 0; step < 200; step += 1) {
      const id = `a${pick(6)}`;
      const kind = pick(10);
      if (kind < 6) {
        const state = agent(id, pick(101));
        truth.set(id, state);
        pending.set(id, ["update", ++seq, state]);
      } else if (kind < 8) {
        truth.delete(id);
        pending.set(id, ["offline", ++seq, id]);
      } else if (kind === 8) {
        for (const [how, number, what] of [...pending.values()].sort(() => random() - 0.5)) newest()[how](number, what);
        pending.clear();
      } else if (pick(5) === 0) {
        pending.clear();
        newest().snapshot(seq, [...truth.values()]);
      }
    }
    for (const [how, number, what] of pending.values()) newest()[how](number, what);
    assert.deepEqual(new Map([...feed.agents].sort()), new Map([...truth].sort()), `seed ${seed}`);
  }
});

/** A small random number generator, so that a failure can be made again from its seed. */
function mulberry(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
