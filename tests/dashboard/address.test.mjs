// Which view an address asks for.

import assert from "node:assert/strict";
import { test } from "node:test";

import { agentHref, poolHref, viewOf } from "../../src/dashboard/address.js";

const at = (path) => {
  const { kind, poolIds, agentId } = viewOf(`http://host:8080${path}`);
  return [kind, poolIds, agentId];
};

test("every address has its view", () => {
  assert.deepEqual(at("/"), ["overview", null, null]);
  assert.deepEqual(at("/?view=wall"), ["overview", null, null]);
  assert.deepEqual(at("/pools/a.b_C-9?q=x#y"), ["pool", ["a.b_C-9"], null]);
  assert.deepEqual(at("/pools/agents"), ["pool", ["agents"], null]);
  assert.deepEqual(at("/pools/a?view=wall"), ["wall", ["a"], null]);
  assert.deepEqual(at("/pools/a?view=grid"), ["pool", ["a"], null]);
  assert.deepEqual(at("/pools/a/agents/b"), ["agent", ["a"], "b"]);
  assert.deepEqual(at("/pools/agents/agents/agents?view=wall"), ["agent", ["agents"], "agents"]);
});

test("a wall shows the pools that it names, in that order and each once, or all", () => {
  assert.deepEqual(at("/wall?pools=b,a,b,,"), ["wall", ["b", "a"], null]);
  for (const path of ["/wall", "/wall?pools=", "/wall?pools=,"]) assert.deepEqual(at(path), ["wall", null, null]);
});

test("links lead to the views that they are for", () => {
  assert.deepEqual(at(poolHref("a-1")), ["pool", ["a-1"], null]);
  assert.deepEqual(at(agentHref("a-1", "b.2")), ["agent", ["a-1"], "b.2"]);
});
