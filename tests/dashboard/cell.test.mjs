// What a map or a wall screen says of an agent: of one that is gone, what was known then.

import assert from "node:assert/strict";
import test from "node:test";

import { cellOf, knownUntil, loadOf } from "../../src/dashboard/agent-cell.js";
import { judge } from "../../src/dashboard/health.js";

const NOW = Date.parse("2025-01-07T10:35:00Z");
const before = (ms) => new Date(NOW - ms).toISOString();
const running_tasks = [{ task_id: 7, task_type: "plan", workspace_id: "shop", started_at: before(600_000) }];
const agent = { agent_id: "a", agent_name: "a", status: "busy", cpu_usage: 10, memory_usage: 20, running_tasks, last_update_time: before(300_000), interval_ms: 1_000 };
const loss = { agent_id: "a", agent_name: "a", reason: "timeout", at: before(240_000), running_tasks };

test("a task of an agent that is gone grows no older, and loads are of now or not at all", () => {
  const cases = [
    ["live, and late", agent, null, { until: NOW, load: 20, age: "10m", loads: true }],
    ["not heard since a restart", agent, before(60_000), { until: NOW - 300_000, load: null, age: "5m", loads: false }],
    ["lost", loss, null, { until: NOW - 240_000, load: null, age: "6m", loads: false }],
  ];
  for (const [what, metrics, since, expected] of cases) {
    const judged = judge(metrics, NOW, since);
    const cell = cellOf(metrics, judged, NOW);
    const words = cell.words();
    assert.equal(knownUntil(metrics, judged, NOW), expected.until, what);
    assert.deepEqual([cell.load, loadOf(metrics, judged)], [expected.load, expected.load], what);
    assert.ok(words.includes(`plan #7 · shop · ${expected.age}`), `${what}: ${words}`);
    assert.equal(words.includes("CPU"), expected.loads, `${what}: ${words}`);
  }
});
