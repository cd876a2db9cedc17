// metrics-client.d.ts says what is true of metrics-client.js: a front end that uses all of it
// compiles, what it must not do does not, and both name the same things.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

import * as client from "../../src/dashboard/metrics-client.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const COMPILER = join(HERE, "../../target/test-tools/node_modules/typescript");
const TYPES = readFileSync(join(HERE, "../../src/dashboard/metrics-client.d.ts"), "utf8");
/** A member of a class, at the beginning of its line. */
const MEMBER = /^  (?:readonly )?(\w+)[(<:]/gm;

/** What the compiler says of the example, and whether that was nothing. */
function compile() {
  assert.ok(existsSync(COMPILER), "the npm package typescript is missing: run `make test-tools`");
  const args = [join(COMPILER, "bin/tsc"), "--project", HERE, "--pretty", "false"];
  return new Promise((resolve) => {
    execFile(process.execPath, args, (error, stdout) => resolve({ good: error === null, said: stdout }));
  });
}

/** The text between `opening` and the first line that is `}`. */
function block(opening) {
  const [, rest] = TYPES.split(`\n${opening} {\n`);
  assert.ok(rest !== undefined, opening);
  return rest.split("\n}\n")[0];
}

const membersOf = (...openings) => {
  const names = openings.flatMap((opening) => [...block(opening).matchAll(MEMBER)].map(([, name]) => name));
  return [...new Set(names)].sort();
};

test("a front end that uses everything compiles, and only what should", async () => {
  const { good, said } = await compile();
  assert.ok(good, said);
});

test("what the module exports is declared, and what is declared it exports", () => {
  const values = [...TYPES.matchAll(/^export (?:const|function|class) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(values.sort(), Object.keys(client).sort());
  for (const [, name] of TYPES.matchAll(/^export const (\w+)/gm)) assert.equal(typeof client[name], "number", name);
  const example = readFileSync(join(HERE, "example.ts"), "utf8");
  for (const [, name] of TYPES.matchAll(/^export \w+ (\w+)/gm)) {
    assert.ok(new RegExp(`^  ${name},$`, "m").test(example), `${name} is not in the example`);
  }
});

test("the numbers in the comments are the constants'", () => {
  const told = TYPES.matchAll(/: ([\d,]+)(?:\.[^\n]*)? \*\/\nexport const (\w+): number;/g);
  const numbers = [...told].map(([, number, name]) => [name, Number(number.replace(",", ""))]);
  assert.equal(numbers.length, 10);
  for (const [name, number] of numbers) assert.equal(number, client[name], name);
});

test("a feed has the members that are declared, and no others", () => {
  for (const name of ["PoolFeed", "OverviewFeed"]) {
    const feed = new client[name]({ poolId: "p", base: "http://h:1" });
    const has = new Set(["addEventListener", "removeEventListener"]);
    for (let holder = feed; holder !== EventTarget.prototype; holder = Object.getPrototypeOf(holder)) {
      for (const member of Object.getOwnPropertyNames(holder)) has.add(member);
    }
    const declared = membersOf("declare abstract class Feed<EventMap> extends EventTarget", `export class ${name} extends Feed<${name}EventMap>`);
    assert.deepEqual(declared, [...has].sort());
  }
  const refusal = new client.Refusal(404, "why");
  assert.deepEqual(membersOf("export class Refusal extends Error"), ["constructor", "status"]);
  assert.equal(refusal.status, 404);
});
