// All pools that the viewer may see, a card each.

import { summarise } from "./health.js";
import { PoolFeed } from "./metrics-client.js";
import { copy } from "./parts.js";
import { PoolCard } from "./pool-card.js";
import { say } from "./text.js";

/** The view of all pools; its interface is in app.js. */
export class Overview {
  feeds;
  heading = say.pools;
  crumbs = [];
  #cards;

  constructor(place, { pools }) {
    place.replaceChildren(copy("overview-page"));
    this.#cards = pools.map((pool) => ({ card: new PoolCard(pool), feed: new PoolFeed({ poolId: pool.pool_id }) }));
    this.feeds = this.#cards.map(({ feed }) => feed);
    place.querySelector("#pools").append(...this.#cards.map(({ card }) => card.element));
  }

  start() {
    for (const feed of this.feeds) feed.start();
  }

  draw() {}

  tick() {}

  summary() {
    const total = { attention: 0, trouble: false, unheard: 0 };
    for (const { card, feed } of this.#cards) {
      const summary = feed.epoch === null ? null : summarise(feed);
      card.show(summary, feed.connection);
      if (summary === null) continue;
      total.attention += summary.attention;
      total.unheard += summary.unheard;
      total.trouble ||= summary.trouble;
    }
    return { ...total, words: total.attention > 0 ? say.state(total.attention, "attention") : null };
  }

  stop() {
    for (const feed of this.feeds) feed.stop();
  }
}
