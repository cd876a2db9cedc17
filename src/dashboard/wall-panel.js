// One pool on a wall screen: its name, a sentence, and its agents, as large as they can be. Draws what
// the feed holds; who departed is seen by age alone, since nobody presses "Seen" on a wall.

import { cellOf } from "./agent-cell.js";
import { agentHref } from "./address.js";
import { FleetMap } from "./fleet-map.js";
import { judge, summarise, TROUBLE } from "./health.js";
import { fitWall, isKept } from "./map-layout.js";
import { KINDS } from "./map-paint.js";
import { copy, fillList, setText } from "./parts.js";
import { whyOf } from "./sentence.js";
import { say } from "./text.js";
import { WallTile } from "./wall-tile.js";

/** Ages move on by themselves when no batch has drawn for so long. */
const REDRAW_MS = 900;

const names = new Intl.Collator(undefined, { numeric: true });
const nobodySaw = () => false;

export class WallPanel {
  element = copy("wall-panel").firstElementChild;
  #pool;
  #feed;
  #parts;
  /** Who is shown, by id: `metrics`, `since` (of agents not heard since a restart) and `judged`. */
  #entries = new Map();
  #order = [];
  #beats = new Set();
  #layout = null;
  #tiles = [];
  #map = null;
  #isResized = true;
  /** Whether something changed that is not shown, and when all was drawn. */
  #isChanged = true;
  #drawnAt = -Infinity;

  constructor(pool, feed, schedule) {
    this.#pool = pool;
    this.#feed = feed;
    const part = (name) => this.element.querySelector(`.${name}`);
    this.#parts = { headline: part("wall-headline"), named: part("wall-named"), legend: part("wall-legend"), agents: part("wall-agents") };
    this.element.dataset.pool = pool.pool_id;
    setText(part("wall-name"), pool.name);
    const sizes = new ResizeObserver(() => {
      this.#isResized = true;
      this.#isChanged = true;
      schedule();
    });
    sizes.observe(this.#parts.agents);
  }

  /** Takes note of a change of the feed. */
  note({ kind, agentId, agentIds = [] }) {
    this.#isChanged = true;
    // A hidden page has no frames: nothing would pulse, and be noted for ever.
    if (kind === "snapshot" || document.hidden) this.#beats.clear();
    else for (const id of agentId === undefined ? agentIds : [agentId]) this.#beats.add(id);
  }

  /** Shows what changed, and ages, unless that was done a moment ago. */
  tick() {
    if (performance.now() - this.#drawnAt < REDRAW_MS) return;
    this.#isChanged = true;
    this.draw();
  }

  /** Shows all agents as of now, if something changed. */
  draw() {
    if (!this.#isChanged) return;
    this.#isChanged = false;
    this.#drawnAt = performance.now();
    this.#takeAll();
    this.#drawLegend();
    const { clientWidth: width, clientHeight: height } = this.#parts.agents;
    const count = this.#order.length;
    if (width > 0 && height > 0 && (this.#isResized || !isKept(this.#layout, count))) {
      this.#isResized = false;
      this.#arrange(fitWall(width, height, count, innerHeight), height);
    }
    if (this.#layout === null) return;
    const now = this.#feed.asOf();
    if (this.#map !== null) {
      this.#map.show(this.#order.map(({ metrics, judged }) => cellOf(metrics, judged, now)), { beats: this.#beats });
    } else {
      const isFull = this.#layout.level === "full";
      fillTiles(this.#parts.agents, this.#tiles, count);
      this.#order.forEach(({ metrics, judged }, index) => this.#tiles[index].show(metrics, judged, now, isFull));
    }
    this.#beats.clear();
  }

  /** Draws the sentence, and returns the pool's figures; null as long as nothing is known. */
  summary() {
    const { state, reason } = this.#feed.connection;
    const isKnown = this.#feed.epoch !== null;
    const isStale = state !== "live" && reason !== null;
    const summary = isKnown ? summarise(this.#feed, nobodySaw) : null;
    const tone = isStale ? "stale" : summary === null ? "vacant" : summary.trouble ? "trouble" : summary.agents > 0 ? "calm" : "vacant";
    if (this.element.dataset.tone !== tone) this.element.dataset.tone = tone;
    const { headline, named } = this.#parts;
    if (isStale) setText(headline, [say.connection.silent(), say.cause(reason)].filter((part) => part !== null).join(" · "));
    else setText(headline, summary === null ? say.connection.connecting() : say.headline(summary));
    const about = isStale ? [] : (summary?.named ?? []);
    const others = isStale ? 0 : (summary?.attention ?? 0) - about.length;
    const words = about.map((entry) => [entry.metrics.agent_name, whyOf(entry)]);
    if (others > 0) words.push(["", say.andMore(others)]);
    fillList(named, words, makeNamed, (item, [name, why]) => {
      setText(item.firstElementChild, name);
      setText(item.lastElementChild, why);
    });
    return summary;
  }

  /** Whether strength of colour stands for load. */
  get isHeat() {
    return this.#map !== null;
  }

  /** Brings the entries up to date, and judges them. Orders them only if there are others. */
  #takeAll() {
    const { agents, departed, unheard } = this.#feed;
    const heardAt = this.#feed.heardAt();
    const entries = new Map();
    let isOther = false;
    const take = (metrics, since) => {
      const judged = judge(metrics, heardAt, since, nobodySaw);
      if (judged.kind === "offline" || (judged.kind === "lost" && judged.trouble === TROUBLE.GONE)) return;
      const entry = this.#entries.get(metrics.agent_id) ?? { metrics: null };
      if (entry.metrics?.agent_name !== metrics.agent_name) isOther = true;
      entry.metrics = metrics;
      entry.judged = judged;
      entries.set(metrics.agent_id, entry);
    };
    for (const { last, since } of unheard.values()) take(last, since);
    for (const departure of departed.values()) take(departure, null);
    for (const agent of agents.values()) take(agent, null);
    if (!isOther && entries.size === this.#entries.size) {
      this.#entries = entries;
      return;
    }
    const known = this.#order.filter(({ metrics }) => entries.has(metrics.agent_id));
    const fresh = [...entries.values()].filter(({ metrics }) => !this.#entries.has(metrics.agent_id));
    this.#entries = entries;
    this.#order = [...known, ...fresh].sort(byName);
  }

  #drawLegend() {
    const counts = new Map();
    for (const { judged } of this.#order) counts.set(judged.kind, (counts.get(judged.kind) ?? 0) + 1);
    const items = KINDS.filter((kind) => counts.has(kind)).map((kind) => [kind, counts.get(kind)]);
    fillList(this.#parts.legend, items, makeKey, (item, [kind, number]) => {
      const [mark, words] = item.children;
      if (mark.dataset.kind !== kind) mark.dataset.kind = kind;
      setText(words, say.kindCount(number, kind));
    });
  }

  /** Takes over a layout of `fitWall`. */
  #arrange(layout, height) {
    const { agents } = this.#parts;
    if (layout.level !== this.#layout?.level) {
      this.#map?.stop();
      this.#map = null;
      this.#tiles = [];
      const place = document.createElement(layout.level === "heat" ? "div" : "ul");
      agents.replaceChildren(place);
      agents.dataset.level = layout.level;
      if (layout.level === "heat") {
        this.#map = new FleetMap(place, { label: this.#pool.name, hrefOf: (id) => agentHref(this.#pool.pool_id, id), height, isHeat: true });
      } else {
        place.setAttribute("aria-label", this.#pool.name);
      }
    }
    this.#layout = layout;
    const place = agents.firstElementChild;
    if (layout.level === "heat") {
      place.style.setProperty("font-size", "");
      this.#map.resize(height, layout.cell);
      return;
    }
    place.style.setProperty("font-size", `${layout.unit.toFixed(2)}px`);
    place.style.setProperty("gap", `${layout.gap}px`);
    place.style.setProperty("grid-template-columns", `repeat(${layout.columns}, ${layout.wide}px)`);
    place.style.setProperty("grid-auto-rows", `${layout.high}px`);
  }
}

function fillTiles(agents, tiles, count) {
  const list = agents.firstElementChild;
  while (tiles.length > count) tiles.pop().element.remove();
  while (tiles.length < count) {
    tiles.push(new WallTile());
    list.append(tiles.at(-1).element);
  }
}

function byName({ metrics: a }, { metrics: b }) {
  return names.compare(a.agent_name, b.agent_name) || (a.agent_id < b.agent_id ? -1 : 1);
}

function makeNamed() {
  const item = document.createElement("li");
  item.append(document.createElement("bdi"), " ", document.createElement("span"));
  return item;
}

function makeKey() {
  const item = document.createElement("li");
  const mark = document.createElement("span");
  mark.className = "cell";
  mark.style.setProperty("--load", "60%");
  item.append(mark, " ", document.createElement("span"));
  return item;
}
