// Levels, lateness, and how numbers and times are written: the edges.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";

import { ageMs, byAge, isLate, level, mostCommon } from "../../src/dashboard/health.js";
import { languageOf } from "../../src/dashboard/text.js";
import { percent } from "../../src/dashboard/numbers.js";
import * as chinese from "../../src/dashboard/words-zh.js";
import * as english from "../../src/dashboard/words-en.js";

const { span } = english.say;

const NOW = Date.parse("2025-01-07T10:35:00Z");
const before = (ms) => new Date(NOW - ms).toISOString();

test("green under 70, yellow from 70 to under 90, red from 90; the number never contradicts it", () => {
  const seen = [0, 69.9, 69.96, 70, 89.9, 89.97, 90, 99.99, 100].map((value) => [level(value), percent(value)]);
  assert.deepEqual(seen, [
    ["ok", "0.0 %"],
    ["ok", "69.9 %"],
    ["ok", "69.9 %"],
    ["warm", "70.0 %"],
    ["warm", "89.9 %"],
    ["warm", "89.9 %"],
    ["hot", "90.0 %"],
    ["hot", "99.9 %"],
    ["hot", "100.0 %"],
  ]);
});

test("a span has two units at most", () => {
  const texts = [0, 999, 59_999, 60_000, 3_599_000, 3_600_000, 86_399_000, 86_400_000, 200_000_000].map(span);
  assert.deepEqual(texts, ["0s", "0s", "59s", "1m", "59m", "1h 0m", "23h 59m", "1d 0h", "2d 7h"]);
});

test("in Chinese as short", () => {
  const texts = [59_999, 60_000, 3_900_000, 200_000_000].map(chinese.say.span);
  assert.deepEqual(texts, ["59秒", "1分", "1小时5分", "2天7小时"]);
});

test("only RFC 3339 is a time", () => {
  assert.equal(ageMs("2025-01-07T10:34:00Z", NOW), 60_000);
  assert.equal(ageMs("2025-01-07T18:34:00.5+08:00", NOW), 59_500);
  assert.equal(ageMs("2025-01-07T10:36:00Z", NOW), 0);
  for (const text of ["yesterday", "2025", "", "7", "2025-13-45T10:34:00Z", undefined]) assert.equal(ageMs(text, NOW), null);
  assert.equal(ageMs("2025-01-07T10:34:00Z", null), null);
});

test("late is judged by the agent's own rhythm", () => {
  const agent = (silent, interval_ms) => ({ last_update_time: before(silent), interval_ms });
  assert.equal(isLate(agent(7_000, 2_000), NOW), false);
  assert.equal(isLate(agent(7_001, 2_000), NOW), true);
  assert.equal(isLate(agent(7_000, 10), NOW), false);
  assert.equal(isLate(agent(7_001, 10), NOW), true);
  assert.equal(isLate(agent(76_000, 30_000), NOW), false);
  assert.equal(isLate(agent(152_000, null), NOW), false);
  assert.equal(isLate(agent(152_001, null), NOW), true);
});

test("the longest-running task comes first, unreadable starts last", () => {
  const tasks = [{ started_at: "soon" }, { started_at: before(1) }, { started_at: before(9) }, { started_at: "" }];
  assert.deepEqual(byAge(tasks), [tasks[2], tasks[1], tasks[0], tasks[3]]);
});

test("states are few, the most common, by name; which of equals does not depend on their order", () => {
  const states = [["b", 1], ["a", 1], ["d", 2], ["c", 1]];
  assert.deepEqual(mostCommon(states, 2), [["a", 1], ["d", 2]]);
  assert.deepEqual(mostCommon(states.toReversed(), 3), [["a", 1], ["b", 1], ["d", 2]]);
  assert.deepEqual(mostCommon(states, 9), [["a", 1], ["b", 1], ["c", 1], ["d", 2]]);
});

test("the language is the browser's first of those that there are", () => {
  const seen = [[], ["de-DE"], ["zh-CN", "en"], ["en-GB", "zh"], ["fr", "ZH-Hans-CN", "en"]].map(languageOf);
  assert.deepEqual(seen, ["en", "en", "zh-CN", "en", "zh-CN"]);
});

/** The members of `words` as paths, each with what it is. */
function shape(words, path = "") {
  return Object.entries(words).flatMap(([key, value]) =>
    typeof value === "object" ? shape(value, `${path}${key}.`) : [`${path}${key}: ${typeof value}`],
  );
}

test("the sentence says what needs someone, or that all is well, and only that", () => {
  const none = { agents: 0, departed: 0, unheard: 0, attention: 0, paused: 0, tasksLost: 0, isCut: false };
  const cases = [
    [{}, "Nothing reported yet", "还没有上报"],
    [{ departed: 2 }, "No agent reports any more", "已经没有 Agent 在上报"],
    [{ unheard: 3 }, "3 not heard yet since the restart", "3 个重启后尚未上报"],
    [{ agents: 1 }, "The one agent is well", "1 个全部正常"],
    [{ agents: 40, departed: 2 }, "All 40 well", "40 个全部正常"],
    [{ agents: 40, paused: 3 }, "37 well, 3 paused", "37 个正常，3 个暂停"],
    [{ agents: 3, paused: 3 }, "3 paused", "3 个暂停"],
    [{ agents: 40, unheard: 1 }, "40 well, 1 not heard yet since the restart", "40 个正常，1 个重启后尚未上报"],
    [{ agents: 40, attention: 1 }, "1 needs attention", "1 个需要关注"],
    [{ agents: 40, attention: 3, tasksLost: 2 }, "3 need attention, 2 tasks were lost", "3 个需要关注，丢失了 2 个任务"],
    [{ attention: 50, tasksLost: 60, isCut: true }, "At least 50 need attention, 60 tasks were lost", "至少 50 个需要关注，丢失了 60 个任务"],
    [{ attention: 1, tasksLost: 1, departed: 1 }, "1 needs attention, 1 task was lost", "1 个需要关注，丢失了 1 个任务"],
  ];
  for (const [summary, inEnglish, inChinese] of cases) {
    assert.equal(english.say.headline({ ...none, ...summary }), inEnglish);
    assert.equal(chinese.say.headline({ ...none, ...summary }), inChinese);
  }
  assert.deepEqual([49, 50].map(english.say.goodbyes), ["49 said goodbye", "at least 50 said goodbye"]);
});

test("both languages say the same things", () => {
  assert.deepEqual(shape(chinese.say).sort(), shape(english.say).sort());
});

/** Names that an object literal of `source` has twice: the first of them would go without a word. */
function namesTwice(source) {
  const twice = [];
  // What is open: the names of an object (or of a block, which has none), "`", or another bracket.
  const open = [new Set()];
  let before = "";
  for (let rest = source; rest !== ""; ) {
    const inTemplate = open.at(-1) === "`";
    const pattern = inTemplate ? /^(?:\$\{|`|\\.|[^])/ : /^(?:\s+|\/\/.*|\/\*[^]*?\*\/|"(?:[^"\\]|\\.)*"|[\w$]+|[^])/;
    const [token] = rest.match(pattern);
    rest = rest.slice(token.length);
    if (!inTemplate && /^(?:\s|\/[/*])/.test(token)) continue;
    if (token === "`") inTemplate ? open.pop() : open.push("`");
    else if (token === (inTemplate ? "${" : "{")) open.push(new Set());
    else if (!inTemplate && (token === "(" || token === "[")) open.push(token);
    else if (!inTemplate && /^[)\]}]$/.test(token)) open.pop();
    else if (open.at(-1) instanceof Set && /^[{,]$/.test(before) && /^["\w$]/.test(token) && /^\s*[:,}]/.test(rest)) {
      if (open.at(-1).has(token)) twice.push(token);
      open.at(-1).add(token);
    }
    before = token;
  }
  assert.equal(open.length, 1, "it was not read to its end");
  return twice;
}

test("no text is replaced by another of the same name", () => {
  assert.deepEqual(namesTwice('const a = { b: 1, c: { b: `${d ? `{` : "}"}, b: "`, b }, "x": f(b, b), /* , x: */ b: 2, "x": 3 };'), ["b", "b", '"x"']);
  for (const file of ["words-en.js", "words-zh.js"]) {
    const source = readFileSync(new URL(`../../src/dashboard/${file}`, import.meta.url), "utf8");
    assert.deepEqual(namesTwice(source), [], file);
  }
});

test("what is unknown in Chinese is said as it is, also by names that objects inherit", () => {
  for (const word of ["warming-up", "constructor", "__proto__"]) {
    assert.equal(chinese.say.status(word), word);
    assert.equal(chinese.say.stateName(word), chinese.say.status(word));
    assert.equal(chinese.say.cause(word), word);
  }
  assert.equal(chinese.say.state(2, "constructor"), "2 个 constructor");
  assert.equal(chinese.say.cause("the server closed the connection (1008)"), "服务器关闭了连接（1008）");
  assert.equal(chinese.say.cause(null), null);
});

test("every fixed text of the pages has its Chinese, and none is left over", () => {
  const names = new Set();
  for (const page of ["index.html", "login.html"]) {
    const text = readFileSync(new URL(`../../src/dashboard/${page}`, import.meta.url), "utf8");
    for (const [, name] of text.matchAll(/data-say(?:-label|-hint)?="(\w+)"/g)) names.add(name);
    const untold = [...text.matchAll(/<(title|h1|h2|p|label|button|option|dt|a)\b([^>]*)>[A-Z][a-z]+/g)]
      .filter(([, , attributes]) => !/data-say=|JavaScript/.test(attributes))
      .map(([tag]) => tag);
    assert.deepEqual(untold.filter((tag) => !tag.includes('class="notice"')), []);
    for (const [, attributes] of text.matchAll(/<\w+([^>]*aria-label="[^>]*)>/g)) assert.match(attributes, /data-say-label=/);
  }
  assert.deepEqual([...names].sort(), Object.keys(chinese.fixed).sort());
});

test("what the server refuses with is known by its own words", () => {
  const root = new URL("../../src/server/", import.meta.url);
  const rust = readdirSync(root, { recursive: true })
    .filter((name) => name.endsWith(".rs"))
    .map((name) => readFileSync(new URL(name, root), "utf8"))
    .join("\n")
    .replace(/\\\n\s+/g, "");
  const details = [
    "a viewer token is needed, and none or a wrong one was sent",
    "wrong viewer token",
    "no such pool",
    "no such path",
    "this Host is not served here; see allowed_hosts",
    "this Origin is neither this server's, with its scheme, nor listed; see allowed_origins, and behind a proxy with TLS trusted_proxies",
    "the server is stopping",
    "the server is overloaded",
    "the workers are overloaded",
    "no worker answered in time",
    "the request was lost on its way; try again",
    "internal error",
  ];
  for (const detail of details) {
    assert.ok(rust.includes(`"${detail}"`), `no more said: ${detail}`);
    assert.notEqual(chinese.say.cause(detail), detail);
  }
});
