// One agent: what it reports and what it runs.

import { PoolFeed } from "./metrics-client.js";
import { AgentEntry } from "./agent-entry.js";
import { AgentRow } from "./agent-row.js";
import { poolHref } from "./address.js";
import { copy, setShown, setText } from "./parts.js";
import { say } from "./text.js";

/** The view of one agent; its interface is in app.js. */
export class AgentPage {
  feeds;
  #pool;
  #agentId;
  #feed;
  #place;
  #row = null;

  constructor(place, { pools: [pool], view }) {
    place.replaceChildren(copy("agent-page"));
    this.#place = place;
    this.#pool = pool;
    this.#agentId = view.agentId;
    this.#feed = new PoolFeed({ poolId: pool.pool_id });
    this.feeds = [this.#feed];
  }

  get heading() {
    return this.#row?.entry.name ?? this.#agentId;
  }

  get crumbs() {
    return [[this.#pool.name, poolHref(this.#pool.pool_id)], [this.heading, null]];
  }

  start() {
    this.#feed.start();
  }

  draw() {
    const { agents, departed, unheard, epoch } = this.#feed;
    const entry = unheard.get(this.#agentId);
    const metrics = agents.get(this.#agentId) ?? departed.get(this.#agentId) ?? entry?.last;
    const unknown = this.#place.querySelector("#unknown");
    setShown(unknown, epoch !== null && metrics === undefined);
    setText(unknown, say.noSuchAgent(this.#agentId));
    if (metrics === undefined) return;
    if (this.#row === null) {
      this.#row = new AgentRow(this.#pool.pool_id);
      this.#place.querySelector("#agent").append(this.#row.element);
    }
    const agent = this.#row.entry ?? new AgentEntry(this.#agentId);
    agent.take(metrics, entry?.since ?? null);
    if (this.#row.entry === null) this.#row.show(agent);
    this.#row.draw(this.#times());
  }

  tick() {
    this.#row?.tick(this.#times());
  }

  summary() {
    return { words: null, trouble: false, unheard: 0 };
  }

  stop() {
    this.#feed.stop();
  }

  #times() {
    return { now: this.#feed.asOf(), heardAt: this.#feed.heardAt(), windowMs: null, mostTasks: Infinity };
  }
}
