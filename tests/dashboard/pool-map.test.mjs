// The map of a pool without its page: what it notes between two frames.

import assert from "node:assert/strict";
import test from "node:test";

/** As little of a document as a map without cells needs. */
function element() {
  return {
    style: {},
    classList: { add() {} },
    hidden: false,
    setAttribute() {},
    append() {},
    replaceChildren() {},
    addEventListener() {},
    getContext: () => ({}),
  };
}

globalThis.document = { createElement: element };
globalThis.matchMedia = () => ({ matches: false, addEventListener() {} });
globalThis.ResizeObserver = class {
  observe() {}
  disconnect() {}
};

const { PoolMap } = await import("../../src/dashboard/pool-map.js");

/** A feed of one live agent that counts how many agents are looked up in it. */
function newFeed() {
  const agents = new Map([["stays", { agent_id: "stays", agent_name: "stays" }]]);
  const feed = { poolId: "pool", epoch: null, agents, departed: new Map(), unheard: new Map(), asOf: () => 0, heardAt: () => 0, looks: 0 };
  agents.get = (id) => {
    feed.looks += 1;
    return Map.prototype.get.call(agents, id);
  };
  return feed;
}

test("a map that is not drawn forgets agents that come and go", () => {
  const feed = newFeed();
  const { agents } = feed;
  const map = new PoolMap(element(), feed, () => false);
  for (let runner = 0; runner < 1_000; runner += 1) {
    const [single, batched] = [`single-${runner}`, `batched-${runner}`];
    agents.set(single, {}).set(batched, {});
    map.note({ kind: "update", agentId: single });
    map.note({ kind: "batch", agentIds: ["stays", batched], departedIds: [] });
    agents.delete(single);
    agents.delete(batched);
    map.note({ kind: "departed", agentId: single });
    map.note({ kind: "batch", agentIds: [], departedIds: [batched] });
  }
  // Who left and is back in one batch stays noted.
  map.note({ kind: "batch", agentIds: ["stays"], departedIds: ["stays"] });
  map.draw();
  assert.equal(feed.looks, 1, "of those who are there");
});
