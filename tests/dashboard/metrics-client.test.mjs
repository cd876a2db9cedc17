// The client module alone, under Node's own test runner: `node --test tests/dashboard/`.
// Connections, order and time; client-state.test.mjs has what is held after any sequence of
// messages, client-hostile.test.mjs what no server should send.

import assert from "node:assert/strict";
import test from "node:test";

import { summarise } from "../../src/dashboard/health.js";
import { LIVE_WINDOW_MS, MAX_DEPARTED, PoolFeed, RETRY_FIRST_MS, RETRY_LAST_MS, retryDelay, SILENCE_LIMIT_MS } from "../../src/dashboard/metrics-client.js";
import { agent, at, Clock, house, settled, START, task } from "./client-house.mjs";

test("the snapshot makes it live, updates and departures follow", () => {
  const { feed, join, newest, changes } = house();
  assert.equal(newest().url, "ws://h:1/ws/agent-pools/p/metrics");
  assert.equal(feed.connection.state, "connecting");
  join(5, [agent("a"), agent("b", 3, [task(7)])]);
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
    running_tasks: [task(7)],
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

test("another of several servers is not a restart, a server that is another than it was is one", () => {
  const { feed, join, newest, changes, clock } = house();
  const rejoin = (...snapshot) => {
    newest().end(1006);
    clock.forward(feed.retryInMs());
    join(...snapshot);
    return [changes.at(-1).restarted, [...feed.agents.keys()], [...feed.unheard.keys()]];
  };
  join(9, [agent("a"), agent("b")], { epoch: "e1", server_id: "s1" });
  assert.deepEqual(rejoin(3, [agent("a")], { epoch: "e2", server_id: "s2" }), [false, ["a"], []]);
  assert.equal(feed.epoch, "e2");
  newest().update(4, agent("c"));
  assert.deepEqual(rejoin(9, [agent("b")], { epoch: "e1", server_id: "s1" }), [false, ["b"], []]);
  assert.deepEqual(rejoin(0, [], { epoch: "e3", server_id: "s1" }), [true, [], ["b"]]);
  assert.deepEqual(rejoin(0, [agent("d")], { epoch: "e2", server_id: "s2" }), [false, ["d"], ["b"]], "what a restart left stays");
  for (const server_id of [undefined, null, 7]) {
    const epoch = `other ${server_id}`;
    assert.equal(rejoin(0, [agent("d")], { epoch, server_id })[0], true, "one that has no name");
  }
  assert.equal(rejoin(0, [agent("d")], { epoch: "e9", server_id: "s1" })[0], true, "after one that had no name");
});

test("strangers' messages are ignored", () => {
  const { feed, join, newest, changes } = house();
  newest().open();
  newest().update(1, agent("early"));
  newest().snapshot(1, []);
  newest().say({ type: "metrics_update", seq: 2, pool_id: "q", metrics: agent("x") });
  newest().say({ type: "news", seq: 3 });
  newest().raw("{");
  newest().raw("null");
  assert.equal(feed.agents.size, 0);
  assert.equal(changes.length, 1);
});

test("task ids keep all their digits, and text that looks like one stays text", () => {
  const { feed, newest } = house();
  newest().open();
  const task_type = '"task_id":18446744073709551615';
  const agents = JSON.stringify([agent("a", 1, [{ ...task(0), task_type }])]);
  const metrics = agents.replace('"task_id":0', '"task_id":18446744073709551615');
  const data = `{"type":"initial_metrics","pool_id":"p","metrics":${metrics}}`;
  newest().raw(data);
  assert.deepEqual(feed.agents.get("a").running_tasks, [{ ...task("18446744073709551615"), task_type }]);
});

test("12 s without a message is the end of live, and the next message its return", () => {
  const { feed, join, newest, clock, sockets } = house();
  const states = [];
  feed.addEventListener("connection", ({ detail }) => states.push(detail.state));
  join(0, [agent("a")]);
  clock.forward(LIVE_WINDOW_MS - 1);
  newest().say({ type: "keepalive", seq: 0 });
  clock.forward(LIVE_WINDOW_MS - 1);
  assert.equal(feed.connection.state, "live");
  clock.forward(1);
  const { reason, retryAt } = feed.connection;
  assert.deepEqual([feed.connection.state, reason, retryAt], ["silent", "nothing arrives", null]);
  for (const message of [{ type: "keepalive", seq: 0 }, { type: "metrics_update", seq: 1, metrics: agent("a", 50) }]) {
    newest().say(message);
    assert.equal(feed.connection.state, "live");
    clock.forward(LIVE_WINDOW_MS);
    assert.equal(feed.connection.state, "silent");
  }
  newest().snapshot(2, [agent("b")]);
  assert.equal(feed.connection.state, "live");
  assert.deepEqual([...feed.agents.keys()], ["b"]);
  assert.deepEqual(states, ["live", "silent", "live", "silent", "live", "silent", "live"]);
  assert.equal(sockets.length, 1, "a server that is silent may be sending a long snapshot");
});

test("a connection is given up after 45 s of silence, live before or not", () => {
  for (const joined of [true, false]) {
    const { feed, join, newest, clock, sockets } = house();
    if (joined) join(0);
    else newest().open();
    clock.forward(SILENCE_LIMIT_MS - 1);
    assert.equal(feed.connection.state, joined ? "silent" : "connecting");
    clock.forward(1);
    assert.equal(feed.connection.state, "waiting");
    assert.equal(sockets[0].closed, true);
    assert.equal(feed.retryInMs(), 1000);
    clock.forward(1000);
    assert.equal(sockets.length, 2);
  }
});

test("a snapshot that is long in coming starts the window of what is live", () => {
  const { feed, newest, clock } = house();
  newest().open();
  clock.forward(SILENCE_LIMIT_MS - 1);
  newest().snapshot(0);
  assert.equal(feed.connection.state, "live");
  clock.forward(LIVE_WINDOW_MS);
  assert.equal(feed.connection.state, "silent");
});

test("who hears of the silence may stop the feed, and it stays stopped", () => {
  const { feed, join, clock, sockets } = house();
  join(0);
  feed.addEventListener("connection", ({ detail }) => detail.state === "silent" && feed.stop());
  clock.forward(3_600_000);
  assert.equal(feed.connection.state, "stopped");
  assert.equal(sockets.length, 1);
});

test("lateness is judged as of the last message: a server that is stopped makes nobody late", () => {
  const { feed, join, newest, clock } = house();
  assert.equal(feed.heardAt(), null);
  const quick = { ...agent("a"), interval_ms: 1_000 };
  join(0, [quick]);
  for (let second = 1; second <= LIVE_WINDOW_MS / 1_000; second += 1) {
    clock.forward(1_000);
    assert.equal(feed.heardAt(), START);
    const { late, trouble } = summarise(feed);
    assert.deepEqual({ late, trouble }, { late: 0, trouble: false }, `after ${second} s`);
  }
  clock.forward(1_000);
  newest().say({ type: "keepalive", seq: 0 });
  assert.equal(summarise(feed).late, 1, "the server was there all the time, and did not hear it");
});

test("waits double from 1 s to 30 s where chance makes them longest, and start anew after a steady connection", async () => {
  const world = house({ answers: null });
  const waits = [];
  for (let attempt = 0; attempt < 9; attempt += 1) {
    world.newest().end(1006);
    await settled();
    waits.push(world.feed.retryInMs());
    world.clock.forward(world.feed.retryInMs());
  }
  assert.deepEqual(waits, [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000]);
  world.join(0);
  world.newest().end(1006);
  assert.equal(world.feed.retryInMs(), 30000, "a connection that fell at once proves nothing");
  world.clock.forward(30000);
  world.join(0);
  world.clock.forward(10_000);
  world.newest().end(1006);
  assert.equal(world.feed.retryInMs(), 1000);
});

test("every wait is half chance, the first one too: a thousand pages do not come back at once", () => {
  for (let attempt = 0; attempt < 70; attempt += 1) {
    const [shortest, longest] = [retryDelay(attempt, () => 0), retryDelay(attempt, () => 1)];
    assert.equal(longest, shortest * 2, `attempt ${attempt}`);
    assert.ok(shortest >= RETRY_FIRST_MS && longest <= RETRY_LAST_MS, `attempt ${attempt}`);
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
  assert.equal(feed.connection.state, "silent", "a hidden tab's timers are late");
  assert.equal(sockets.length, 2);
  feed.wake({ networkChanged: true });
  assert.equal(sockets.length, 3);
  join(0);
  clock.wallSkew += SILENCE_LIMIT_MS;
  feed.wake();
  assert.equal(sockets.length, 4, "the machine slept: only the wall clock saw it");
  join(0);
  feed.wake({ networkChanged: true });
  assert.equal(sockets.length, 5);
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

test("who hears of an attempt may stop the feed or begin anew, and no second socket is left", () => {
  for (const [act, state] of [["stop", "stopped"], ["reconnect", "connecting"]]) {
    const { feed, join, newest, clock, sockets } = house();
    join(0);
    newest().end(1006);
    let heard = 0;
    feed.addEventListener("connection", () => feed.connection.state === "connecting" && (heard += 1) === 1 && feed[act]());
    clock.forward(2 * RETRY_FIRST_MS);
    assert.equal(heard, act === "stop" ? 1 : 2);
    assert.equal(feed.connection.state, state);
    assert.deepEqual(sockets.slice(1).map(({ closed }) => closed), act === "stop" ? [] : [false]);
    if (act === "stop") clock.forward(3_600_000);
    assert.equal(feed.connection.state, state);
  }
});

test("stopping twice is stopping once, and a stopped feed can be started again", () => {
  const { feed, join, sockets } = house();
  join(0, [agent("a")]);
  const states = [];
  feed.addEventListener("connection", ({ detail }) => states.push(detail.state));
  feed.stop();
  feed.stop();
  assert.equal(feed.agents.size, 1, "what was known stays");
  feed.start();
  feed.start();
  join(0);
  assert.deepEqual(states, ["stopped", "connecting", "live"]);
  assert.equal(sockets.length, 2);
  assert.equal(feed.agents.size, 0);
});

test("an error event of the socket is expected: the package ws throws where nobody listens", () => {
  const { feed, newest } = house();
  assert.equal(newest().listens("error"), true);
  newest().dispatchEvent(new Event("error"));
  assert.equal(feed.connection.state, "connecting");
});

test("a pool's id stays one part of the path", () => {
  class WebSocket extends EventTarget {
    static urls = [];
    constructor(url) {
      super();
      WebSocket.urls.push(url);
    }
    close() {}
  }
  const feed = new PoolFeed({ poolId: "a/b?c#d", base: "http://h:1", token: "t&t", clock: new Clock(), WebSocket });
  feed.start();
  assert.deepEqual(WebSocket.urls, ["ws://h:1/ws/agent-pools/a%2Fb%3Fc%23d/metrics?token=t%26t"]);
});
