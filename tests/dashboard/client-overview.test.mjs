// The overview's feed: all pools over one connection. The connection is the same as a pool's
// (metrics-client.test.mjs); here stand what is its own, and that it has one.

import assert from "node:assert/strict";
import test from "node:test";

import { LIVE_WINDOW_MS, OverviewFeed, RETRY_LAST_MS } from "../../src/dashboard/metrics-client.js";
import { house, pool, settled, START } from "./client-house.mjs";

/** Its server's messages name no pool. */
function overview(more) {
  const world = house({ make: (options) => new OverviewFeed({ ...options, ...more }), ...more });
  world.say = (pools, rest = {}) => world.newest().say({ type: "pool_summaries", pool_id: undefined, seq: 1, pools, ...rest });
  world.join = (...pools) => {
    world.newest().open();
    world.say(...pools);
  };
  return world;
}
const held = ({ feed }) => [...feed.pools].map(([id, { name }]) => [id, name]);

test("the first message has all pools, and what follows those that changed", () => {
  const world = overview({ token: "t" });
  const { feed, join, say, changes, newest } = world;
  assert.equal(newest().url, "ws://h:1/ws/agent-pools?token=t");
  assert.deepEqual([feed.connection.state, feed.pools.size, feed.epoch], ["connecting", 0, null]);
  join([pool("b"), pool("a")]);
  assert.deepEqual([feed.connection.state, feed.epoch], ["live", "e1"]);
  assert.deepEqual([...feed.pools], [["b", pool("b")], ["a", pool("a")]]);
  say([pool("a", { name: "A" }), pool("c")]);
  say([]);
  assert.deepEqual(held(world), [["b", "name of b"], ["a", "A"], ["c", "name of c"]]);
  assert.deepEqual(changes, [{ kind: "snapshot", restarted: false }, { kind: "pools", poolIds: ["a", "c"] }]);
});

test("each connection begins anew: pools that are no more are gone, and a restart is told", () => {
  const world = overview();
  const { feed, join, newest, clock, changes } = world;
  join([pool("a"), pool("b")]);
  newest().end(1001);
  assert.deepEqual([feed.connection.state, feed.connection.reason], ["waiting", "the server is shutting down"]);
  assert.equal(feed.pools.size, 2, "what was known stays until it is known better");
  clock.forward(feed.retryInMs());
  join([pool("b", { name: "B" })], { epoch: "e2" });
  assert.deepEqual(held(world), [["b", "B"]]);
  newest().end(1006);
  clock.forward(feed.retryInMs());
  join([], { epoch: "e2" });
  assert.deepEqual(held(world), []);
  assert.deepEqual(changes.map(({ kind, restarted }) => [kind, restarted]), [["snapshot", false], ["snapshot", true], ["snapshot", false]]);
});

test("a keepalive keeps it live, silence ends that, and times are the server's", () => {
  const { feed, join, say, newest, clock } = overview();
  join([pool("a")]);
  clock.forward(LIVE_WINDOW_MS - 1);
  newest().say({ type: "keepalive", pool_id: undefined, seq: 1 });
  assert.equal(feed.heardAt(), START + LIVE_WINDOW_MS - 1);
  clock.forward(1);
  assert.deepEqual([feed.connection.state, feed.asOf()], ["live", START + LIVE_WINDOW_MS]);
  clock.forward(LIVE_WINDOW_MS);
  assert.equal(feed.connection.state, "silent");
  assert.equal(feed.asOf(), feed.heardAt());
  say([pool("a")]);
  assert.equal(feed.connection.state, "live");
  assert.equal(feed.serverNow(), START + clock.time);
  feed.stop();
  assert.equal(feed.connection.state, "stopped");
});

test("why it was refused says the list of pools", async () => {
  const asked = [];
  const fetch = async (url, { method }) => {
    asked.push(`${method} ${url.pathname}`);
    return new Response(method === "HEAD" ? null : '{"detail":"not from there"}', { status: 403 });
  };
  const { feed, newest } = overview({ fetch });
  newest().end(1006);
  await settled();
  assert.deepEqual(asked, ["HEAD /api/v1/agent-pools", "GET /api/v1/agent-pools"]);
  const { state, status, reason } = feed.connection;
  assert.deepEqual({ state, status, reason }, { state: "refused", status: 403, reason: "not from there" });
  assert.equal(feed.retryInMs(), RETRY_LAST_MS);
});

test("a pool that is wrong costs the others nothing, and what is optional costs its pool nothing", () => {
  const right = pool("a", { cpu: null, memory: null, last_loss_at: "2025-01-07T10:35:00.123Z", app_keys: ["k"] });
  const wrongs = [
    null,
    [],
    "a",
    {},
    ...Object.keys(pool("a"))
      .filter((name) => name !== "cells")
      .map((name) => pool("a", { [name]: name === "cpu" || name === "memory" ? {} : [] })),
    ...["total", "by_status"].map((name) => pool("a", { agents: { ...right.agents, [name]: undefined } })),
    ...Object.keys(right.states).map((kind) => pool("a", { states: { ...right.states, [kind]: -1 } })),
    pool("a", { agents: { total: 1, by_status: { busy: "1" } } }),
    pool("a", { cpu: { mean: 1 } }),
    pool("a", { last_loss_at: "yesterday" }),
    pool("", {}),
  ];
  for (const wrong of wrongs) {
    const world = overview();
    world.join([pool("before"), wrong, right]);
    assert.deepEqual([...world.feed.pools], [["before", pool("before")], ["a", right]], JSON.stringify(wrong));
    world.say([wrong]);
    assert.deepEqual(world.feed.pools.get("a"), right, JSON.stringify(wrong));
    assert.equal(world.changes.length, 1);
  }
  assert.ok(wrongs.length > 20);
  const { cells: _, ...bare } = pool("a");
  for (const cells of [undefined, null, 7, "b", "b1i", "x1", "bb", "b1 i0", ["b1"]]) {
    const world = overview();
    world.join([pool("a", { cells, app_keys: ["k", 1] })]);
    assert.deepEqual(world.feed.pools.get("a"), bare, JSON.stringify(cells));
  }
  const world = overview();
  world.join([pool("a", { cells: "b9i0l1e2p3o4" }), pool("b", { cells: "" })]);
  assert.deepEqual([...world.feed.pools.values()].map(({ cells }) => cells), ["b9i0l1e2p3o4", ""]);
});

test("what is no message of its own is none", () => {
  const world = overview();
  const { feed, newest, say, changes } = world;
  newest().open();
  newest().say({ type: "keepalive", pool_id: undefined });
  newest().say({ type: "pools", pools: [pool("x")] });
  say("all");
  say([pool("x")], { seq: "first" });
  assert.equal(feed.connection.state, "connecting");
  say([pool("a")]);
  for (const data of ["", "null", "[]", '"pool_summaries"', undefined, new ArrayBuffer(8)]) newest().raw(data);
  for (const pools of [undefined, null, {}, "b", 1]) say(pools);
  newest().say({ type: "initial_metrics", pool_id: "p", metrics: [], seq: 2 });
  assert.deepEqual(held(world), [["a", "name of a"]]);
  assert.equal(changes.length, 1);
  assert.equal(feed.connection.state, "live");
});
