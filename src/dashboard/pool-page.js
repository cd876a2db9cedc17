// One pool: its figures, and its agents.

import { AgentList } from "./agent-list.js";
import { summarise } from "./health.js";
import { PoolFeed } from "./metrics-client.js";
import { copy } from "./parts.js";
import { PoolCard } from "./pool-card.js";
import { say } from "./text.js";

/** The view of one pool; its interface is in app.js. */
export class PoolPage {
  feeds;
  heading;
  crumbs;
  #feed;
  #card;
  #list;

  constructor(place, { pools: [pool], view, schedule }) {
    place.replaceChildren(copy("pool-page"));
    this.heading = pool.name;
    // A viewer of one pool has it at `/`, which is no step below the product's name.
    this.crumbs = view.kind === "overview" ? [] : [[pool.name, null]];
    this.#feed = new PoolFeed({ poolId: pool.pool_id });
    this.feeds = [this.#feed];
    this.#card = new PoolCard(pool);
    place.querySelector("#pools").append(this.#card.element);
    this.#list = new AgentList(place.querySelector("#agents"), place.querySelector("#toolbar"), this.#feed, location.origin, schedule);
    this.#feed.addEventListener("change", ({ detail }) => this.#list.note(detail));
  }

  start() {
    this.#feed.start();
  }

  draw() {
    this.#list.draw();
  }

  tick() {
    this.#list.tick();
  }

  summary() {
    const summary = this.#feed.epoch === null ? null : summarise(this.#feed);
    this.#card.show(summary, this.#feed.connection);
    if (summary === null) return null;
    const { departed, trouble, unheard } = summary;
    return { words: departed > 0 ? say.departed(departed) : null, trouble, unheard };
  }

  stop() {
    this.#feed.stop();
  }
}
