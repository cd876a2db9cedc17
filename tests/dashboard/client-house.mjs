// What the tests of the client module share: a feed whose time, chance, sockets and HTTP are the
// test's own. Asserts nothing.

import { PoolFeed } from "../../src/dashboard/metrics-client.js";

export const START = Date.parse("2025-01-07T10:35:00.000Z");

/** A clock that moves when told to, and fires what is due on the way. */
export class Clock {
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

/** A pool's feed, or what `make` makes, with a server that is the test. */
export function house({ answers = 200, make = (options) => new PoolFeed({ poolId: "p", ...options }) } = {}) {
  const clock = new Clock();
  const sockets = [];
  class WebSocket extends EventTarget {
    types = new Set();
    constructor(url) {
      super();
      this.url = url;
      this.closed = false;
      sockets.push(this);
    }
    addEventListener(type, listener) {
      this.types.add(type);
      super.addEventListener(type, listener);
    }
    listens(type) {
      return this.types.has(type);
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
      this.raw(JSON.stringify({ pool_id: "p", epoch: "e1", server_time: at(clock.time), ...message }));
    }
    raw(data) {
      this.dispatchEvent(Object.assign(new Event("message"), { data }));
    }
    snapshot(seq, metrics = [], more = {}) {
      this.say({ type: "initial_metrics", seq, metrics, departed: [], ...more });
    }
    update(seq, metrics) {
      this.say({ type: "metrics_update", seq, metrics });
    }
    batch(seq, metrics = [], offline = []) {
      this.say({ type: "metrics_batch", seq, metrics, offline });
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
  world.feed = make({ base: "http://h:1", clock, random: () => 1, WebSocket, fetch });
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

export const at = (ms) => new Date(START + ms).toISOString();
export const agent = (agent_id, cpu_usage = 1, running_tasks = []) => ({
  agent_id,
  agent_name: `name of ${agent_id}`,
  cpu_usage,
  memory_usage: 2,
  running_tasks,
  last_update_time: at(0),
  status: "idle",
  interval_ms: null,
});
export const departure = (agent_id, more = {}) => ({
  agent_id,
  agent_name: `name of ${agent_id}`,
  reason: "goodbye",
  at: at(0),
  running_tasks: [],
  ...more,
});
/** A pool in figures, with one agent. */
export const pool = (pool_id, more = {}) => ({
  pool_id,
  name: `name of ${pool_id}`,
  agents: { total: 1, by_status: { busy: 1 } },
  departed: 0,
  cpu: { mean: 12.5, max: 12.5 },
  memory: { mean: 1, max: 1 },
  states: { busy: 1, idle: 0, late: 0, error: 0, paused: 0, other: 0 },
  late: 0,
  attention: 0,
  lost: 0,
  tasks_lost: 0,
  last_loss_at: null,
  free: 0,
  cells: "b1",
  ...more,
});
export const settled = () => new Promise((resolve) => setImmediate(resolve));
export const task = (task_id) => ({ task_id, task_type: "plan", workspace_id: "w", started_at: at(0) });

/** A small random number generator, so that a failure can be made again from its seed. */
export function mulberry(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
