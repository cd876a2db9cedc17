// One pool in a card: agents by state, loads, room for work. Draws what `summarise` says.

import { copy, fillList, Meter, setShown, setText } from "./parts.js";
import { say } from "./text.js";

/** A card; `element` is to be put on the page, `show` called with every new summary. */
export class PoolCard {
  element;
  #counts;
  #cpu;
  #memory;
  #room;
  #state;

  /** `pool` is an entry of the pool list. */
  constructor(pool) {
    this.element = copy("pool-card").firstElementChild;
    this.element.dataset.pool = pool.pool_id;
    const link = this.element.querySelector(".pool-name");
    link.href = `/pools/${pool.pool_id}`;
    setText(link.firstElementChild, pool.name);
    link.title = pool.pool_id;
    this.#counts = this.element.querySelector(".counts");
    this.#room = this.element.querySelector(".room");
    this.#state = this.element.querySelector(".feed-state");
    this.#cpu = new Meter(this.element.querySelector(".cpu"), say.cpu);
    this.#memory = new Meter(this.element.querySelector(".memory"), say.memory);
  }

  /** Draws `summary`; `connection` is the feed's. */
  show(summary, connection) {
    const known = summary !== null;
    const live = connection.state === "live";
    this.element.classList.toggle("stale", !live);
    this.element.classList.toggle("vacant", known && summary.agents === 0 && !summary.trouble);
    this.element.classList.toggle("trouble", known && live && summary.trouble);
    setShown(this.#state, !live);
    if (!live) setText(this.#state, say.cause(connection.reason) ?? say.connection[connection.state](0));
    if (!known) return;
    fillList(this.#counts, chips(summary), () => document.createElement("li"), showChip);
    showLoad(this.#cpu, summary.cpu);
    showLoad(this.#memory, summary.memory);
    setText(this.#room, say.room(summary));
  }
}

/** What the counts line says, each with the kind that colours it. */
function chips({ agents, states, others }) {
  const list = [["all", say.agents(agents)]];
  for (const { state, kind, number, calm } of states) list.push([calm ? "offline" : kind, say.state(number, state)]);
  if (others > 0) list.push(["others", say.others(others)]);
  return list;
}

function showChip(chip, [kind, text]) {
  if (chip.dataset.kind !== kind) chip.dataset.kind = kind;
  setText(chip, text);
}

function showLoad(meter, load) {
  if (load === null) meter.show(null);
  else meter.show(load.mean, { peak: load.max, note: say.highest(load), words: say.meanAndMax(load) });
}
