// One pool in a card of the overview: whether someone is needed, its agents as a map and by state, and
// its loads. Draws a pool of the overview's feed; what nobody has seen of its losses it is told.

import { poolHref } from "./address.js";
import { drawCells, forgetCells, stateBar } from "./fleet-map.js";
import { copy, fillList, Meter, setShown, setText } from "./parts.js";
import { say } from "./text.js";

/** The kinds of states in a card, the worst first. */
const KINDS = ["error", "late", "paused", "other", "busy", "idle"];

/** A card; `element` is to be put on the page. */
export class PoolCard {
  element;
  #name;
  #free;
  #headline;
  #map;
  #counts;
  #loads;
  #cpu;
  #memory;

  constructor(poolId) {
    this.element = copy("pool-card").firstElementChild;
    this.element.dataset.pool = poolId;
    const part = (selector) => this.element.querySelector(selector);
    const link = part(".pool-name");
    link.href = poolHref(poolId);
    link.title = poolId;
    this.#name = link.firstElementChild;
    this.#free = part(".free");
    this.#headline = part(".headline");
    this.#map = part(".map").firstElementChild;
    this.#counts = part(".counts");
    this.#loads = part(".loads");
    this.#cpu = new Meter(part(".cpu"), say.cpu);
    this.#memory = new Meter(part(".memory"), say.memory);
  }

  /** Takes it off the page. */
  remove() {
    forgetCells(this.#map);
    this.element.remove();
  }

  /** Draws `pool`, which asks for `needs` (health.js, `needsOf`). */
  show(pool, needs) {
    const { agents, cpu, memory, free, states, departed, cells } = pool;
    const { total } = agents;
    const tone = needs.attention > 0 ? "trouble" : total > 0 ? "calm" : "vacant";
    if (this.element.dataset.tone !== tone) this.element.dataset.tone = tone;
    setText(this.#name, pool.name);
    setText(this.#free, total === 0 ? "" : say.freeOf(free, total));
    const words = needs.attention > 0 ? say.needs(needs) : say.headline({ agents: total, departed, unheard: 0, paused: states.paused, ...needs });
    setText(this.#headline, words);
    setShown(this.#map.parentElement, total > 0);
    if (total > 0) {
      if (cells === undefined) stateBar(this.#map, states);
      else drawCells(this.#map, cells);
    }
    const chips = chipsOf(pool, needs);
    setShown(this.#counts, chips.length > 0);
    fillList(this.#counts, chips, () => document.createElement("li"), showChip);
    setShown(this.#loads, total > 0);
    showLoad(this.#cpu, cpu);
    showLoad(this.#memory, memory);
  }
}

/** Agents by state, each with the kind that colours it. */
function chipsOf({ states, late, attention }, { lost }) {
  const list = KINDS.filter((kind) => states[kind] > 0).map((kind) => [kind, say.kind(states[kind], kind)]);
  // What needs attention and is neither late nor in error has its memory or a disk in the red.
  const high = attention - late - states.error;
  if (high > 0) list.unshift(["high", say.state(high, "high")]);
  if (lost > 0) list.unshift(["lost", say.state(lost, "lost")]);
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
