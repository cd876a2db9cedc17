// A pool's agents as a map, kept in step with its feed: what changed is drawn in each frame, who came
// or went and what time alone changes once a second.

import { cellOf } from "./agent-cell.js";
import { agentHref } from "./address.js";
import { FleetMap } from "./fleet-map.js";
import { judge, TROUBLE } from "./health.js";
import { MAP_HEIGHT } from "./map-layout.js";
import { setShown } from "./parts.js";
import { say } from "./text.js";

/** On a telephone the agents' list comes first; the height is in CSS pixels. */
const PHONE = "(max-width: 40rem)";
const PHONE_HEIGHT = 44;

const names = new Intl.Collator(undefined, { numeric: true });

/** The map of `feed` in `place`. `isSeen` tells of a loss whether it was marked. */
export class PoolMap {
  #place;
  #feed;
  #isSeen;
  #map;
  #phone = matchMedia(PHONE);
  /**
   * Who is on the map, in the order of names: `metrics`, and of an agent that was not heard after a
   * restart `since`, the time of that.
   */
  #order = [];
  #shown = new Map();
  #changed = new Set();
  /** Whether others are to be on the map: all is looked at anew. */
  #isOther = true;

  constructor(place, feed, isSeen) {
    this.#place = place;
    this.#feed = feed;
    this.#isSeen = isSeen;
    const height = () => (this.#phone.matches ? PHONE_HEIGHT : MAP_HEIGHT);
    const hrefOf = (id) => agentHref(feed.poolId, id);
    this.#map = new FleetMap(place, { label: say.map, hrefOf, hint: "map-hint", height: height() });
    this.#phone.onchange = () => this.#map.resize(height());
  }

  /** Takes note of a change of the feed (its event's `detail`). */
  note({ kind, agentId, agentIds = [agentId], departedIds = [] }) {
    if (kind === "snapshot" || kind === "departed" || departedIds.length > 0) this.#isOther = true;
    if (kind === "snapshot") {
      this.#changed.clear();
      return;
    }
    // A hidden page has no frames: who is gone must not stay until the next.
    for (const id of departedIds) this.#changed.delete(id);
    for (const id of agentIds) {
      if (this.#feed.agents.has(id)) this.#changed.add(id);
      else this.#changed.delete(id);
    }
  }

  /** Draws what was noted; all at the first time. For an animation frame. */
  draw() {
    if (this.#order.length === 0) this.drawAll();
    if (this.#changed.size === 0) return;
    const now = this.#feed.asOf();
    const heardAt = this.#feed.heardAt();
    const cells = [];
    for (const id of this.#changed) {
      const agent = this.#feed.agents.get(id);
      const entry = this.#shown.get(id);
      // Who is new, renamed or back comes with the next tick.
      if (entry?.metrics.agent_name !== agent?.agent_name || entry?.since !== null) this.#isOther = true;
      if (agent === undefined || entry === undefined) continue;
      entry.metrics = agent;
      cells.push(cellOf(agent, judge(agent, heardAt), now));
    }
    this.#map.change(cells, { beats: this.#changed });
    this.#changed.clear();
  }

  /** Draws all agents: lateness comes with time alone, and losses grow calm. For once a second. */
  drawAll() {
    if (this.#feed.epoch === null) return;
    const isDeparted = ({ metrics }) => metrics.last_update_time === undefined;
    if (this.#isOther || this.#order.some(isDeparted)) this.#reorder();
    for (const entry of this.#order) entry.metrics = this.#feed.agents.get(entry.metrics.agent_id) ?? entry.metrics;
    const now = this.#feed.asOf();
    const heardAt = this.#feed.heardAt();
    setShown(this.#place, this.#order.length > 0);
    this.#map.show(this.#order.map(({ metrics, since }) => cellOf(metrics, judge(metrics, heardAt, since, this.#isSeen), now)));
  }

  /** Losses were marked as seen. */
  judgeAnew() {
    this.#isOther = true;
    this.drawAll();
  }

  /** All that are there, and losses that are not calm yet. Those who stay are in order already. */
  #reorder() {
    const { agents, departed, unheard } = this.#feed;
    const heardAt = this.#feed.heardAt();
    const shown = new Map();
    const take = (metrics, since) => {
      if (judge(metrics, heardAt, since, this.#isSeen).trouble !== TROUBLE.GONE) shown.set(metrics.agent_id, { metrics, since });
    };
    for (const { last, since } of unheard.values()) take(last, since);
    for (const departure of departed.values()) take(departure, null);
    for (const agent of agents.values()) take(agent, null);
    const stay = this.#order.map(({ metrics }) => shown.get(metrics.agent_id)).filter((entry) => entry !== undefined);
    const come = [...shown.values()].filter(({ metrics }) => !this.#shown.has(metrics.agent_id));
    this.#order = [...stay, ...come].sort(byName);
    this.#shown = shown;
    this.#isOther = false;
  }
}

function byName({ metrics: a }, { metrics: b }) {
  return names.compare(a.agent_name, b.agent_name) || (a.agent_id < b.agent_id ? -1 : 1);
}
