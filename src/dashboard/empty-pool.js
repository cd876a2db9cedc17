// A pool without agents: the lines that make one report, to be copied.

import { setShown, setText } from "./parts.js";
import { agentCommand, curlLine, say } from "./text.js";

/** App keys that may stand in a shell's line as they are; others are left to be filled in. */
const PLAIN_KEY = /^[A-Za-z0-9._-]{1,128}$/;
/** "Copied" stands for so long. */
const COPIED_MS = 3_000;

/** Fills `element` with the commands for `pool`, an entry of the pool list, on the server `origin`. */
export function fillEmptyPool(element, pool, origin) {
  const key = pool.app_keys?.find?.((name) => PLAIN_KEY.test(name)) ?? null;
  const part = (selector) => element.querySelector(selector);
  setText(part(".curl"), curlLine(origin, key));
  setText(part(".agent-command"), agentCommand(origin, key));
  setText(part(".pool-id"), pool.pool_id);
  setShown(part(".key-unknown"), key === null);
  setShown(part(".key-known"), key !== null);
  setText(part(".app-key"), key ?? "");
  for (const command of element.querySelectorAll(".command")) {
    const [code, button, told] = [command.querySelector("code"), command.querySelector("button"), command.querySelector("[role=status]")];
    button.addEventListener("click", () => copyText(code, told));
  }
}

/** Copies the text of `code`; where the browser keeps its clipboard closed, as on plain http, selects it. */
async function copyText(code, told) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    setText(told, say.copied);
    setTimeout(() => setText(told, ""), COPIED_MS);
  } catch {
    getSelection().selectAllChildren(code);
    setText(told, say.pressCopyKeys(/mac|iphone|ipad/i.test(navigator.platform) ? "⌘C" : "Ctrl+C"));
  }
}
