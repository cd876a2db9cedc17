// The page's language: the browser's first choice of those that there are. Fills in the fixed
// texts of the HTML files, which are in English.

import * as english from "./words-en.js";
import * as chinese from "./words-zh.js";

export { percent } from "./numbers.js";

/** The value for `lang`, of a browser's preferred `languages`. */
export function languageOf(languages) {
  const known = languages.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => tag === "zh" || tag === "en");
  return known === "zh" ? "zh-CN" : "en";
}

/** `en` or `zh-CN`. */
export const language = languageOf(globalThis.navigator?.languages ?? []);

const words = language === "en" ? english : chinese;

/** The sentences, by what they are for. */
export const { say } = words;

/** A span of time with its two largest units: `7 s`, `2 min 05 s`, `3 h 10 min`, `2 d 4 h`. */
export const { span } = say;

/**
 * Puts the fixed texts of `root` into the page's language: `data-say` names the text of an
 * element, `data-say-label` its `aria-label`, `data-say-hint` its `placeholder`.
 */
export function translate(root) {
  if (words.fixed === undefined) return;
  const each = (name, put) => {
    for (const element of root.querySelectorAll(`[data-${name}]`)) put(element, words.fixed[element.getAttribute(`data-${name}`)]);
  };
  each("say", (element, text) => (element.textContent = text));
  each("say-label", (element, text) => element.setAttribute("aria-label", text));
  each("say-hint", (element, text) => element.setAttribute("placeholder", text));
  for (const template of root.querySelectorAll("template")) translate(template.content);
}

/** Sets the language of the document. */
export function translateDocument() {
  document.documentElement.lang = language;
  translate(document);
}

/** A moment of the day, as the reader writes it: `medium` with seconds. */
export function clockTime(time, timeStyle = "short") {
  return new Date(time).toLocaleTimeString(navigator.languages, { timeStyle });
}

/** The heartbeat to paste, for a pool without agents; `key` is an app key, or null if none is known. */
export function curlLine(origin, key) {
  return [
    `curl -X POST ${origin}/api/v1/agents/my-agent/ping \\`,
    `  -H "X-App-Key: ${key ?? "KEY"}" -H "X-App-Secret: SECRET" \\`,
    `  -d '{"status":"idle","cpu_usage":12.5,"memory_usage":40}'`,
  ].join("\n");
}

/** The command that reports a machine's real figures, likewise. */
export function agentCommand(origin, key) {
  return [`AGENT_METRICS_APP_SECRET=SECRET \\`, `  agent-metrics agent --server ${origin} --app-key ${key ?? "KEY"}`].join("\n");
}
