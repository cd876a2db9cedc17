// What the client holds after any sequence of messages that a server may send: what the server
// holds. Sequences are random; a failure names the seed that makes it again.

import assert from "node:assert/strict";
import test from "node:test";

import { MAX_DEPARTED } from "../../src/dashboard/metrics-client.js";
import { agent, at, departure, house, mulberry, task } from "./client-house.mjs";

const SEEDS = 400;
const STEPS = 250;

test("after a lag a fresh snapshot counts, whatever its number, and what is older does not", () => {
  for (const fresh of [3, 100, 250]) {
    const { feed, join, newest } = house();
    join(100, [agent("a", 1), agent("b", 1)]);
    newest().update(101, agent("a", 2));
    newest().offline(102, "b");
    newest().snapshot(fresh, [agent("b", 9), agent("c", 9)]);
    for (const old of [fresh - 2, fresh]) {
      newest().update(old, agent("c", 8));
      newest().update(old, agent("d", 8));
      newest().offline(old, "b");
    }
    const held = () => [...feed.agents.values()].map(({ agent_id, cpu_usage }) => [agent_id, cpu_usage]);
    assert.deepEqual(held(), [["b", 9], ["c", 9]], `snapshot ${fresh}`);
    newest().update(fresh + 1, agent("c", 10));
    newest().offline(fresh + 2, "b");
    assert.deepEqual(held(), [["c", 10]]);
    assert.deepEqual([...feed.departed.keys()], ["b"]);
  }
});

test("departures of one moment stay in the order of the server, and the oldest go first", () => {
  const departed = [];
  for (let n = 0; n < MAX_DEPARTED + 2; n += 1) {
    departed.unshift({ agent_id: `a${n}`, agent_name: "n", reason: "goodbye", at: at(0), running_tasks: [] });
  }
  const { feed, join, newest } = house();
  join(0, [], { departed });
  assert.deepEqual([...feed.departed.keys()], departed.toReversed().slice(2).map(({ agent_id }) => agent_id));
  newest().offline(1, "last", "goodbye");
  assert.equal(feed.departed.size, MAX_DEPARTED);
  assert.deepEqual([feed.departed.has("a2"), feed.departed.has("a3"), feed.departed.has("last")], [false, true, true]);
});

test("losses and plain goodbyes do not push each other out, and their totals count on", () => {
  const { feed, join, newest } = house();
  const lost = departure("lost", { reason: "timeout" });
  join(0, [], { departed: [lost], departures: { lost: 7, goodbyes: 1_000 } });
  assert.deepEqual(feed.departures, { lost: 7, goodbyes: 1_000 });
  let seq = 1;
  for (let n = 0; n < MAX_DEPARTED + 1; n += 1) newest().offline(seq++, `bye${n}`, "goodbye");
  assert.equal(feed.departed.size, MAX_DEPARTED + 1);
  assert.deepEqual([feed.departed.has("lost"), feed.departed.has("bye0"), feed.departed.has("bye1")], [true, false, true]);
  for (let n = 0; n < MAX_DEPARTED; n += 1) {
    // A goodbye with running tasks leaves them behind.
    newest().update(seq++, agent(`held${n}`, 1, [task(n)]));
    newest().offline(seq++, `held${n}`, "goodbye");
  }
  assert.equal(feed.departed.size, 2 * MAX_DEPARTED);
  assert.deepEqual([feed.departed.has("lost"), feed.departed.has("held0"), feed.departed.has("bye1")], [false, true, true], "the oldest loss went");
  assert.deepEqual(feed.departures, { lost: 7 + MAX_DEPARTED, goodbyes: 1_000 + MAX_DEPARTED + 1 });
  newest().offline(seq - 1, `held${MAX_DEPARTED - 1}`, "timeout");
  assert.equal(feed.departures.lost, 7 + MAX_DEPARTED, "what is no news is not counted");
  for (const departures of [undefined, null, [], { lost: -1, goodbyes: 1 }, { lost: 1 }]) {
    newest().snapshot(seq++, [], { departed: [lost], departures });
    assert.deepEqual(feed.departures, { lost: 1, goodbyes: 0 }, "at least what is listed");
  }
});

const unheard = ({ feed }) => [...feed.unheard].map(([id, { last, since }]) => [id, last.agent_id, last.reason ?? "live", since]);

test("a restart leaves those that the new server has not heard, until they are or are dismissed", () => {
  const world = house();
  const { feed, join, newest, clock, changes } = world;
  const restart = (epoch, ...snapshot) => {
    newest().end(1001);
    clock.forward(feed.retryInMs());
    join(...snapshot, { epoch });
  };
  join(10, [agent("a", 1, [task(7)]), agent("b"), agent("c"), agent("d")], { departed: [] });
  newest().offline(11, "c", "timeout");
  assert.equal(feed.unheard.size, 0);
  restart("e2", 0, [agent("b")]);
  const first = at(clock.time);
  assert.deepEqual(unheard(world), [["c", "c", "timeout", first], ["a", "a", "live", first], ["d", "d", "live", first]]);
  assert.deepEqual(feed.unheard.get("a").last.running_tasks, [task(7)]);
  assert.deepEqual([[...feed.agents.keys()], feed.departed.size], [["b"], 0]);

  newest().update(1, agent("a"));
  newest().offline(2, "c");
  assert.deepEqual(unheard(world), [["d", "d", "live", first]]);
  assert.equal(feed.departed.get("c").agent_name, "name of c", "what was known of it is not lost");
  newest().snapshot(3, [agent("a")], { epoch: "e2" });
  assert.deepEqual(unheard(world), [["d", "d", "live", first]], "a snapshot of the same server knows no more");

  restart("e3", 0, []);
  const second = at(clock.time);
  assert.deepEqual(unheard(world), [["d", "d", "live", first], ["a", "a", "live", second]]);
  newest().snapshot(1, [agent("d")], { epoch: "e3" });
  assert.deepEqual(unheard(world), [["a", "a", "live", second]]);
  feed.dismissUnheard();
  assert.equal(feed.unheard.size, 0);
  assert.deepEqual(changes.at(-1), { kind: "snapshot", restarted: false });
});

test("however often a server restarts, what waits to be heard is bounded: the latest stay", () => {
  const { feed, join, newest, clock } = house();
  const departed = Array.from({ length: MAX_DEPARTED }, (_, n) => n);
  for (let epoch = 0; epoch < 4; epoch += 1) {
    const agents = Array.from({ length: 4_000 }, (_, n) => agent(`live-${epoch}-${n}`));
    const gone = departed.map((n) => ({ agent_id: `gone-${epoch}-${n}`, agent_name: "n", reason: "timeout", at: at(n), running_tasks: [] }));
    join(0, agents, { epoch: `e${epoch}`, departed: gone.reverse() });
    newest().end(1001);
    clock.forward(feed.retryInMs());
  }
  join(0, [], { epoch: "last" });
  const ids = [...feed.unheard.keys()];
  assert.equal(ids.filter((id) => id.startsWith("live-")).length, 10_000);
  assert.deepEqual(ids.filter((id) => id.startsWith("gone-")), departed.map((n) => `gone-3-${n}`));
  for (const [id, kept] of [["live-0-3999", false], ["live-1-1999", false], ["live-1-2000", true], ["live-3-0", true]]) {
    assert.equal(feed.unheard.has(id), kept, id);
  }
});

test("whatever comes in whatever order, in the end the client holds what the server holds", () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const random = mulberry(seed);
    const server = new [Server, BatchServer][seed % 2](random, house());
    for (let step = 0; step < STEPS; step += 1) {
      server.act();
      const { agents, departed, unheard } = server.world.feed;
      for (const id of departed.keys()) assert.ok(!agents.has(id), `seed ${seed}, step ${step}: ${id} is both`);
      for (const id of unheard.keys()) assert.ok(!agents.has(id) && !departed.has(id), `seed ${seed}, step ${step}: ${id} was heard`);
      if (step % 50 === 49) server.compare(`seed ${seed}, step ${step}`);
    }
  }
});

/**
 * A pool as simple as can be, and its one dashboard. Messages wait in a queue for each agent, and
 * queues are served in any order, as a busy server does; within one agent the order stays.
 */
class Server {
  live = new Map();
  departed = new Map();
  departures = { lost: 0, goodbyes: 0 };
  /** Known to the client before a restart, and not heard since. */
  unheard = new Set();
  queues = new Map();
  /** Sent on this connection, the newest last: for those that come twice. */
  sent = [];
  seq = 0;
  epoch = "e1";
  time = 0;

  constructor(random, world) {
    this.pick = (n) => Math.floor(random() * n);
    this.world = world;
    this.ids = 1 + this.pick(40);
    this.join();
  }

  act() {
    this.time += 1 + this.pick(3);
    const what = this.pick(100);
    if (what < 35) this.heartbeat(this.id());
    else if (what < 50) this.leave(this.id());
    else if (what < 85) this.deliver();
    else if (what < 92) this.repeat();
    else if (what < 95) this.resync();
    else if (what < 98) this.reconnect();
    else this.restart();
  }

  id = () => `a${this.pick(this.ids)}`;

  heartbeat(id) {
    const tasks = Array.from({ length: this.pick(3) }, () => task(this.pick(1000)));
    const state = { ...agent(id, this.pick(101), tasks), agent_name: `name ${this.pick(9)}` };
    this.live.set(id, state);
    this.departed.delete(id);
    this.unheard.delete(id);
    this.sendUpdate(id, state);
  }

  sendUpdate(id, state) {
    const queue = this.queueOf(id);
    // Of two updates in a row that wait, a server under load keeps the newer.
    if (queue.at(-1)?.type === "metrics_update" && this.pick(2) === 0) queue.pop();
    queue.push(this.message({ type: "metrics_update", metrics: state }));
  }

  leave(id) {
    const last = this.live.get(id);
    if (last === undefined) return;
    const reason = ["goodbye", "timeout"][this.pick(2)];
    this.live.delete(id);
    const { agent_name, running_tasks } = last;
    const entry = { agent_id: id, agent_name, reason, at: at(this.time), running_tasks };
    this.departed.set(id, entry);
    this.departures[reason === "timeout" || running_tasks.length > 0 ? "lost" : "goodbyes"] += 1;
    this.sendOffline(id, entry);
  }

  sendOffline(id, { reason }) {
    this.queueOf(id).push(this.message({ type: "agent_offline", reason, metrics: { agent_id: id, status: "offline" } }));
  }

  message = (more) => ({ ...more, seq: ++this.seq, epoch: this.epoch, server_time: at(this.time) });

  queueOf(id) {
    if (!this.queues.has(id)) this.queues.set(id, []);
    return this.queues.get(id);
  }

  deliver() {
    const queues = [...this.queues.values()].filter((queue) => queue.length > 0);
    if (queues.length === 0) return;
    const message = queues[this.pick(queues.length)].shift();
    this.world.newest().say(message);
    this.sent.push(message);
  }

  repeat() {
    if (this.sent.length > 0) this.world.newest().say(this.sent[this.pick(this.sent.length)]);
  }

  /** What waited is in the snapshot; sometimes it comes all the same, behind it. */
  resync() {
    if (this.pick(2) === 0) this.queues.clear();
    this.snapshot();
  }

  snapshot() {
    const departed = [...this.departed.values()].reverse();
    const { departures, epoch, seq } = this;
    this.world.newest().snapshot(seq, [...this.live.values()], { departed, departures, epoch, server_time: at(this.time) });
  }

  join() {
    this.queues.clear();
    this.sent = [];
    this.world.newest().open();
    this.snapshot();
  }

  /** The network breaks, the pool goes on; from the old connection a last word comes late. */
  reconnect() {
    const old = this.world.newest();
    const late = { type: "metrics_update", seq: this.seq + 1_000, metrics: agent("late") };
    old.end(1006);
    for (let lost = this.pick(5); lost > 0; lost -= 1) this.heartbeat(this.id());
    this.world.clock.forward(this.world.feed.retryInMs());
    old.say(late);
    this.join();
    old.say(late);
  }

  restart() {
    const { agents, departed, unheard } = this.world.feed;
    this.unheard = new Set([...agents.keys(), ...departed.keys(), ...unheard.keys()]);
    this.live.clear();
    this.departed.clear();
    this.departures = { lost: 0, goodbyes: 0 };
    this.seq = this.pick(3);
    this.epoch += "'";
    this.world.newest().end(1001);
    this.world.clock.forward(this.world.feed.retryInMs());
    this.join();
  }

  /** Once all is delivered. */
  compare(where) {
    while ([...this.queues.values()].some((queue) => queue.length > 0)) this.deliver();
    const { feed } = this.world;
    const sorted = (map) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
    assert.equal(feed.connection.state, "live", where);
    assert.equal(feed.epoch, this.epoch, where);
    assert.deepEqual(sorted(feed.agents), sorted(this.live), where);
    assert.deepEqual(sorted(feed.departed), sorted(this.departed), where);
    assert.deepEqual(feed.departures, this.departures, where);
    assert.deepEqual([...feed.unheard.keys()].sort(), [...this.unheard].sort(), where);
  }
}

/** The same pool and its dashboard, which gets batches: of what changed, the newest, and all departures. */
class BatchServer extends Server {
  changed = new Set();
  offline = [];

  sendUpdate(id) {
    this.seq += 1;
    this.changed.add(id);
  }

  sendOffline(id, entry) {
    this.seq += 1;
    this.changed.add(id);
    this.offline.unshift(entry);
  }

  deliver() {
    if (this.changed.size === 0) return;
    const metrics = [...this.changed].map((id) => this.live.get(id)).filter((state) => state !== undefined);
    const batch = { type: "metrics_batch", metrics, offline: this.offline, seq: this.seq, epoch: this.epoch, server_time: at(this.time) };
    this.forget();
    this.world.newest().say(batch);
    this.sent.push(batch);
  }

  forget() {
    this.changed = new Set();
    this.offline = [];
  }

  /** What waited is in the snapshot, and does not come behind it. */
  snapshot() {
    this.forget();
    super.snapshot();
  }

  compare(where) {
    this.deliver();
    super.compare(where);
  }
}
