// The colours of the kinds of agents' states, in both schemes: badges can be read, cells be told from
// their ground (WCAG 2.2, 1.4.3 and 1.4.11).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const style = readFileSync(new URL("../../src/dashboard/style.css", import.meta.url), "utf8");
const KINDS = ["busy", "idle", "late", "error", "lost", "paused", "other"];

/** The colour `name`, in light and dark. */
function colours(name) {
  const found = style.match(new RegExp(`--${name}: light-dark\\((#[0-9a-f]{6}), (#[0-9a-f]{6})\\)`));
  assert.ok(found, `style.css has no --${name}`);
  return [found[1], found[2]];
}

function luminance(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

for (const [index, scheme] of ["light", "dark"].entries()) {
  test(`kinds can be read and seen: ${scheme}`, () => {
    for (const kind of KINDS) {
      const [fill, text, wash] = ["", "-text", "-wash"].map((part) => colours(`kind-${kind}${part}`)[index]);
      const [surface, ground] = [colours("surface")[index], colours("ground")[index]];
      for (const behind of [wash, surface, ground]) {
        assert.ok(contrast(text, behind) >= 4.5, `${kind}: ${text} on ${behind}`);
      }
      assert.ok(contrast(fill, surface) >= 3, `${kind}: ${fill} on ${surface}`);
    }
  });
}
