// What the client module asks over plain HTTP, with a server that is the test.

import assert from "node:assert/strict";
import test from "node:test";

import { fetchHistory, fetchPools, MAX_HISTORY_AGENTS } from "../../src/dashboard/metrics-client.js";
import { START } from "./client-house.mjs";

const answering = (status, body, expected) => async (url, { headers }) => {
  assert.equal(url.href, expected);
  assert.equal(headers.Authorization, "Bearer t");
  return new Response(body, { status });
};

test("the pools come as they were sent, or as a refusal that says why", async () => {
  const ask = (...answer) => fetchPools({ base: "http://h:1", token: "t", fetch: answering(...answer, "http://h:1/api/v1/agent-pools") });
  assert.deepEqual(await ask(200, '{"pools":[{"pool_id":"p"}]}'), [{ pool_id: "p" }]);
  const refusal = { name: "Refusal", status: 401, message: "a token is needed" };
  await assert.rejects(ask(401, '{"detail":"a token is needed"}'), refusal);
  for (const body of ["", "{", "null", "[]", '{"detail":{"toString":1}}']) {
    await assert.rejects(ask(403, body), { name: "Refusal", status: 403, message: "HTTP 403" }, body);
  }
  for (const body of ["null", "{}", '{"pools":{}}', '{"pools":"p"}']) await assert.rejects(ask(200, body), TypeError, body);
});

const HISTORY = "http://h:1/api/v1/agent-pools/a%2Fb/history";
const history = (body, options = {}, path = HISTORY) => {
  const fetch = answering(options.status ?? 200, typeof body === "string" ? body : JSON.stringify(body), path);
  return fetchHistory("a/b", { base: "http://h:1", token: "t", fetch, ...options });
};
const right = () => ({
  pool_id: "a/b",
  step_ms: 10_000,
  end: new Date(START).toISOString(),
  agents: { a: { cpu: [null, 0, 99.5], memory: [1, 2, 3] }, b: { cpu: [], memory: [] } },
});

test("a history is of all agents, or of those that are named", async () => {
  const { end, stepMs, agents } = await history(right());
  assert.deepEqual([end, stepMs], [START, 10_000]);
  assert.deepEqual([...agents], [["a", { cpu: [null, 0, 99.5], memory: [1, 2, 3] }], ["b", { cpu: [], memory: [] }]]);
  await history(right(), { agents: ["a", "b&c=1"] }, `${HISTORY}?agent=a&agent=b%26c%3D1`);
  const ids = new Set(Array.from({ length: MAX_HISTORY_AGENTS }, (_, n) => `a${n}`));
  await history(right(), { agents: ids }, `${HISTORY}?${[...ids].map((id) => `agent=${id}`).join("&")}`);
  await assert.rejects(history(right(), { agents: [...ids, "one more"] }), RangeError);
  await assert.rejects(history(right(), { agents: [] }), RangeError, "nobody is not everybody");
});

test("a history that is wrong is an error, an agent's that is wrong is left out, a refusal says why", async () => {
  for (const [member, wrongs] of [
    ["end", [undefined, null, 7, "soon", []]],
    ["step_ms", [undefined, null, 0, -1, 1.5, "10000"]],
    ["agents", [undefined, null, "a", 7]],
  ]) {
    for (const wrong of wrongs) await assert.rejects(history({ ...right(), [member]: wrong }), TypeError, `${member}: ${wrong}`);
  }
  for (const body of ["null", "[]", "7", '"text"']) await assert.rejects(history(body), TypeError, body);
  await assert.rejects(history("{"), SyntaxError);
  const { a } = right().agents;
  for (const wrong of [null, [], {}, { cpu: [1] }, { ...a, cpu: [1, 2] }, { ...a, cpu: ["1", 2, 3] }, { ...a, memory: { length: 3 } }]) {
    const { agents } = await history({ ...right(), agents: { a, wrong } });
    assert.deepEqual([...agents.keys()], ["a"], JSON.stringify(wrong));
  }
  const named = `{"step_ms":1,"end":"${right().end}","agents":{"__proto__":${JSON.stringify(a)},"constructor":${JSON.stringify(a)}}}`;
  assert.deepEqual([...(await history(named)).agents.keys()], ["__proto__", "constructor"]);
  await assert.rejects(history('{"detail":"no such pool"}', { status: 404 }), { name: "Refusal", status: 404, message: "no such pool" });
});
