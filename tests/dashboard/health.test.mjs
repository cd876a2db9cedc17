// What needs someone and what doesn't: kinds of states, their edges, a pool in figures, and the
// losses that were seen.

import assert from "node:assert/strict";
import test from "node:test";

import { judge, kindOf, kindOfDeparture, LOSS_MS, MAX_NAMED, MAX_STATES, needsOf, ownStatus, summarise, TROUBLE } from "../../src/dashboard/health.js";
import { MAX_DEPARTED } from "../../src/dashboard/metrics-client.js";
import { MAX_SEEN, Seen, SEEN_KEY } from "../../src/dashboard/seen.js";
import * as chinese from "../../src/dashboard/words-zh.js";
import * as english from "../../src/dashboard/words-en.js";

const NOW = Date.parse("2025-01-07T10:35:00Z");
const before = (ms) => new Date(NOW - ms).toISOString();
const agent = (more = {}) => ({
  agent_id: "a",
  agent_name: "a",
  status: "idle",
  cpu_usage: 1,
  memory_usage: 1,
  running_tasks: [],
  last_update_time: before(0),
  interval_ms: 1_000,
  ...more,
});
const loss = (more = {}) => ({ agent_id: "x", agent_name: "x", reason: "timeout", at: before(0), running_tasks: [], ...more });
/** A feed of these agents and departures, under invented ids where they are many. */
const feedOf = ({ agents = [], departed = [], unheard = [] }) => ({
  heardAt: () => NOW,
  agents: new Map(agents.map((value, index) => [index, value])),
  departed: new Map(departed.map((value, index) => [index, value])),
  unheard: new Map(unheard.map((value, index) => [index, value])),
});
const trouble = (metrics, ...more) => judge(metrics, NOW, ...more).trouble;

test("a status has a kind, and one that the page doesn't know is other", () => {
  const kinds = {
    error: "error", failed: "error", unhealthy: "error",
    draining: "paused", maintenance: "paused", paused: "paused",
    busy: "busy", idle: "idle",
    "warming-up": "other", constructor: "other", late: "other", lost: "other", unheard: "other", high: "other",
  };
  for (const status of Object.keys(kinds)) assert.equal(kindOf(agent({ status }), NOW), kinds[status], status);
  assert.equal(kindOf(agent({ status: "__proto__" }), NOW), "other");
  const silent = agent({ status: "error", last_update_time: before(7_001) });
  assert.equal(kindOf(silent, NOW), "late", "what it said is old");
  assert.equal(kindOf(silent, NOW, before(0)), "unheard");
});

test("a departure is a loss when it fell silent, or left tasks behind", () => {
  const seen = [loss(), loss({ reason: "goodbye" }), loss({ reason: "goodbye", running_tasks: [{}] })].map(kindOfDeparture);
  assert.deepEqual(seen, ["lost", "offline", "lost"]);
});

test("an agent's own word is not the page's", () => {
  for (const word of ["late", "lost", "unheard", "high", "attention"]) {
    const { state, kind, trouble: found } = judge(agent({ status: word }), NOW);
    assert.deepEqual([kind, found, ownStatus(state)], ["other", TROUBLE.NONE, word]);
    assert.notEqual(state, word);
    for (const { say } of [english, chinese]) {
      assert.equal(say.status(word), `“${word}”`);
      assert.equal(say.stateName(state), `“${word}”`);
      assert.notEqual(say.stateName(word), say.stateName(state));
      assert.notEqual(say.state(2, word), say.state(2, state));
    }
  }
  assert.equal(judge(agent({ last_update_time: before(60_000) }), NOW).state, "late");
  assert.equal(judge(agent({ status: "error" }), NOW).state, "error");
  assert.equal(ownStatus("late"), null);
});

test("memory and disk are trouble from 90 % on; the CPU never is", () => {
  assert.equal(trouble(agent({ cpu_usage: 100 })), TROUBLE.NONE);
  assert.equal(trouble(agent({ memory_usage: 89.99 })), TROUBLE.NONE);
  assert.equal(trouble(agent({ memory_usage: 90 })), TROUBLE.HIGH);
  assert.equal(trouble(agent({ disk_usage: 89.99 })), TROUBLE.NONE);
  assert.equal(trouble(agent({ disk_usage: 90 })), TROUBLE.HIGH);
  assert.equal(trouble(agent({ status: "paused", disk_usage: 100 })), TROUBLE.HIGH);
  const late = judge(agent({ memory_usage: 99, last_update_time: before(7_001) }), NOW);
  assert.deepEqual([late.trouble, late.high], [TROUBLE.LATE, false], "counted once");
});

test("a loss needs attention for exactly an hour, or until it was seen", () => {
  assert.equal(trouble(loss({ at: before(LOSS_MS) })), TROUBLE.LOST);
  assert.equal(trouble(loss({ at: before(LOSS_MS + 1) })), TROUBLE.GONE);
  assert.equal(trouble(loss({ at: before(LOSS_MS), running_tasks: [{}] })), TROUBLE.LOST_WITH_TASKS);
  assert.equal(trouble(loss({ at: before(-5_000) })), TROUBLE.LOST, "of a server whose clock is ahead");
  assert.equal(trouble(loss(), null, () => true), TROUBLE.GONE);
  assert.equal(trouble(loss({ reason: "goodbye" })), TROUBLE.GONE);
  assert.equal(trouble(loss({ reason: "goodbye", running_tasks: [{}] })), TROUBLE.LOST_WITH_TASKS);
});

test("a pool in figures", () => {
  const agents = [
    agent({ status: "busy", cpu_usage: 100, memory_usage: 20 }),
    agent({ agent_name: "b", memory_usage: 95, cpu_usage: 20 }),
    agent({ agent_name: "late", cpu_usage: 99, memory_usage: 99, last_update_time: before(60_000) }),
    agent({ status: "draining", cpu_usage: 0 }),
  ];
  const departed = [loss({ running_tasks: [{}, {}] }), loss({ at: before(LOSS_MS + 1), running_tasks: [{}] }), loss({ reason: "goodbye" })];
  const summary = summarise(feedOf({ agents, departed }));
  assert.deepEqual(summary.cpu, { mean: 40, max: 100 });
  const { attention, lost, tasksLost, goodbyes, paused, reporting } = summary;
  assert.deepEqual({ attention, lost, tasksLost, goodbyes, paused, reporting }, { attention: 3, lost: 1, tasksLost: 2, goodbyes: 1, paused: 1, reporting: 3 });
  assert.deepEqual(summary.named.map(({ metrics, kind }) => [metrics.agent_name, kind]), [["x", "lost"], ["late", "late"], ["b", "idle"]]);
  const states = summary.states.map(({ state, number, calm }) => `${number} ${state}${calm ? ", calm" : ""}`);
  assert.deepEqual(states, ["2 lost", "1 late", "1 high", "1 draining", "1 busy", "1 idle", "1 offline"]);
  const seen = summarise(feedOf({ agents: [agent({ cpu_usage: 100 })], departed: [loss()] }), () => true);
  assert.deepEqual([seen.trouble, seen.attention, seen.states.map(({ state, calm }) => [state, calm])], [false, 0, [["idle", false], ["lost", true]]]);
  const empty = summarise(feedOf({}));
  assert.deepEqual([empty.cpu, empty.trouble, empty.states], [null, false, []]);
});

test("a pool's card counts the tasks of losses only where nobody has marked any of them", () => {
  const pool = { attention: 2, lost: 2, tasks_lost: 3 };
  assert.deepEqual(needsOf(pool, 2), { attention: 4, lost: 2, tasksLost: 3 });
  assert.deepEqual(needsOf(pool, 1), { attention: 3, lost: 1, tasksLost: 0 }, "the one that was marked may have held them");
  assert.deepEqual(needsOf(pool, 0), { attention: 2, lost: 0, tasksLost: 0 });
  assert.deepEqual(needsOf({ attention: 0, lost: 0, tasks_lost: 0 }, 0), { attention: 0, lost: 0, tasksLost: 0 });
});

test("where the feed holds as many losses as it can there may be more", () => {
  const losses = (number) => Array.from({ length: number }, () => loss());
  assert.deepEqual([MAX_DEPARTED - 1, MAX_DEPARTED].map((number) => summarise(feedOf({ departed: losses(number) })).isCut), [false, true]);
  assert.equal(summarise(feedOf({ departed: losses(MAX_DEPARTED) }), () => true).isCut, false, "those before were seen too");
});

test("few are named, the most urgent first, and always the same", () => {
  const agents = Array.from({ length: 2_000 }, (_, n) => agent({ agent_name: `n${n}`, status: n === 1_500 ? "error" : "idle", memory_usage: 90 }));
  for (const order of [agents, agents.toReversed(), [...agents.slice(900), ...agents.slice(0, 900)]]) {
    const { attention, named } = summarise(feedOf({ agents: order }));
    assert.equal(named.length, MAX_NAMED);
    assert.deepEqual([attention, ...named.map(({ metrics }) => metrics.agent_name)], [2_000, "n1500", "n0", "n1"]);
  }
  const named = summarise(feedOf({ agents: ["n10", "n9", "n2"].map((agent_name) => agent({ agent_name, memory_usage: 90 })) })).named;
  assert.deepEqual(named.map(({ metrics }) => metrics.agent_name), ["n2", "n9", "n10"], "as people order them");
});

test("room is on who is idle, or below its capacity; slots are told where all tell theirs", () => {
  const roomOf = (...agents) => summarise(feedOf({ agents: agents.map(agent) })).room;
  const tasks = (number) => ({ running_tasks: Array.from({ length: number }, () => ({})) });
  assert.deepEqual(roomOf({}, { status: "busy" }, { status: "maintenance" }, { status: "odd" }), { free: 1, slots: null });
  assert.deepEqual(roomOf({ status: "busy", capacity: 4, ...tasks(1) }, { capacity: 4 }, { status: "error" }), { free: 2, slots: { free: 7, all: 8 } });
  assert.deepEqual(roomOf({ status: "busy", capacity: 1, ...tasks(2) }), { free: 0, slots: { free: 0, all: 1 } });
  assert.deepEqual(roomOf({ capacity: 4 }, {}), { free: 2, slots: null }, "one says nothing");
  assert.deepEqual(roomOf({ capacity: 0 }), { free: 0, slots: null });
  assert.deepEqual(roomOf({ capacity: 4, last_update_time: before(7_001) }), { free: 0, slots: null });
  assert.deepEqual(roomOf({ status: "draining", capacity: 4 }), { free: 0, slots: null });
});

test("of ten thousand invented states the most common are named, and the rest is one number", () => {
  const agents = Array.from({ length: 10_000 }, (_, n) => agent({ status: n % 100 === 0 ? "real" : `invented-${n}` }));
  const { states, others } = summarise(feedOf({ agents }));
  assert.equal(states.length, MAX_STATES);
  assert.deepEqual(states.find(({ state }) => state === "real"), { state: "real", kind: "other", number: 100, calm: false });
  assert.equal(others, 10_000 - 100 - (MAX_STATES - 1));
});

test("after a restart nobody is in trouble for the time that the server was away", () => {
  const last = agent({ last_update_time: before(600_000), interval_ms: 30_000 });
  const summaryOf = (entry) => summarise(feedOf({ unheard: [entry] }));
  const figures = ({ unheard, overdue, departed, lost, trouble }) => [unheard, overdue, departed, lost, trouble];
  assert.deepEqual(figures(summaryOf({ last, since: before(77_000) })), [1, 0, 0, 0, false]);
  assert.deepEqual(figures(summaryOf({ last, since: before(77_001) })), [1, 1, 0, 0, true]);
  assert.deepEqual(figures(summaryOf({ last, since: before(LOSS_MS) })), [1, 1, 0, 0, true]);
  assert.deepEqual(figures(summaryOf({ last, since: before(LOSS_MS + 1) })), [1, 0, 0, 0, false], "as a loss, it is calm after an hour");
  assert.deepEqual(figures(summaryOf({ last: loss({ at: before(700_000) }), since: before(0) })), [0, 0, 1, 1, true], "it was lost before, and still is");
});

/** A browser's storage, as far as it is used. */
class Storage extends Map {
  getItem = (key) => this.get(key) ?? null;
  setItem = (key, value) => this.set(key, value);
}

test("what was seen is kept by pool, agent and time, for all tabs", () => {
  const storage = new Storage();
  const [mine, otherTab] = [new Seen("p", storage), new Seen("p", storage)];
  mine.add([loss({ at: before(9_000) })], NOW);
  assert.deepEqual([mine, otherTab].map((tab) => tab.has(loss({ at: before(9_000) }))), [true, false]);
  otherTab.read();
  assert.equal(otherTab.has(loss({ at: before(9_000) })), true);
  otherTab.add([loss({ agent_id: "y" })], NOW);
  const again = new Seen("p", storage);
  const ages = [10_000, 9_000, 8_000, 7_999, 0];
  assert.deepEqual(ages.map((ms) => again.has(loss({ at: before(ms) }))), [true, true, true, false, false], "a later loss is news");
  assert.equal(again.has(loss({ agent_id: "y" })), true);
  assert.equal(new Seen("q", storage).has(loss({ at: before(9_000) })), false);
  again.add([loss({ at: before(20_000) })], NOW);
  assert.equal(again.has(loss({ at: before(9_000) })), true, "the later mark counts");
});

test("marks are few, those that matter no more go, and nonsense is none", () => {
  const storage = new Storage();
  const many = Array.from({ length: MAX_SEEN + 10 }, (_, n) => loss({ agent_id: `x${n}` }));
  const seen = new Seen("p", storage);
  seen.add([loss({ agent_id: "old", at: before(LOSS_MS + 1) }), loss({ agent_id: "hour", at: before(LOSS_MS) })], NOW);
  assert.equal(JSON.parse(storage.get(SEEN_KEY)).length, 1);
  seen.add(many, NOW);
  assert.equal(JSON.parse(storage.get(SEEN_KEY)).length, MAX_SEEN);
  assert.deepEqual([seen.has(many[0]), seen.has(many.at(-1))], [false, true]);
  for (const nonsense of ["{", "7", "null", '{"a":1}', "[1,null,{}]", '["","  ","now p x"]']) {
    storage.set(SEEN_KEY, nonsense);
    assert.equal(new Seen("p", storage).has(loss()), false, nonsense);
  }
  const closed = { getItem: () => assert.fail("closed"), setItem: () => assert.fail("closed") };
  for (const none of [null, closed]) {
    const page = new Seen("p", none);
    page.add([loss()], NOW);
    assert.equal(page.has(loss()), true, "for as long as the page is open");
  }
});
