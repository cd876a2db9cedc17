// One pool in a sentence: who needs attention and why, or that all is well. Draws what `summarise`
// says, and has the button that marks losses as seen.

import { agentHref } from "./address.js";
import { TROUBLE } from "./health.js";
import { fillList, setShown, setText } from "./parts.js";
import { say } from "./text.js";

/** A name of spaces, or of what has no width, would be a link that nobody sees. */
const VISIBLE = /[\p{L}\p{N}\p{P}\p{S}]/u;

/** The sentence in `element`. `markSeen` is called when its button is pressed. */
export class Sentence {
  #poolId;
  #parts;

  constructor(element, poolId, markSeen) {
    this.#poolId = poolId;
    const part = (name) => element.querySelector(`.${name}`);
    this.#parts = { element, headline: part("headline"), named: part("named"), rest: part("rest"), goodbyes: part("goodbyes"), seen: part("seen") };
    this.#parts.seen.addEventListener("click", () => {
      markSeen();
      // The button goes with the losses.
      this.#parts.headline.focus();
    });
  }

  /** Says `summary`. */
  show(summary) {
    const { element, headline, named, rest, goodbyes, seen } = this.#parts;
    const tone = summary.trouble ? "trouble" : summary.agents > 0 ? "calm" : "vacant";
    if (element.dataset.tone !== tone) element.dataset.tone = tone;
    setShown(element, true);
    setText(headline, say.headline(summary));
    setShown(named, summary.named.length > 0);
    fillList(named, summary.named, makeEntry, (entry, about) => this.#showEntry(entry, about));
    setShown(rest, summary.attention > 1);
    if (summary.attention > 1) setText(rest, say.showAll(summary.attention));
    setShown(goodbyes, summary.goodbyes > 0 && !summary.trouble);
    if (summary.goodbyes > 0) setText(goodbyes, say.goodbyes(summary.goodbyes));
    setShown(seen, summary.lost > 0);
    if (summary.lost > 0) seen.setAttribute("aria-label", say.markSeen(summary.lost));
  }

  #showEntry(entry, about) {
    const { agent_id: agentId, agent_name: name } = about.metrics;
    const [link, why] = entry.children;
    const href = agentHref(this.#poolId, agentId);
    if (link.getAttribute("href") !== href) link.setAttribute("href", href);
    const shown = VISIBLE.test(name) ? name : agentId;
    setText(link.firstElementChild, shown);
    if (link.title !== shown) link.title = shown;
    setText(why, whyOf(about));
  }
}

function makeEntry() {
  const entry = document.createElement("li");
  const link = document.createElement("a");
  link.append(document.createElement("bdi"));
  entry.append(link, " ", document.createElement("span"));
  return entry;
}

/** Why an agent needs attention: of `metrics` what `judge` says. */
export function whyOf({ metrics, kind, trouble }) {
  if (kind === "lost") return say.whyLost(metrics.running_tasks?.length ?? 0);
  if (trouble === TROUBLE.ERROR) return say.status(metrics.status);
  if (trouble === TROUBLE.LATE) return say.stateName(kind);
  const { memory_usage: memory, disk_usage: disk = 0 } = metrics;
  return disk > memory ? say.whyDisk(disk) : say.whyMemory(memory);
}
