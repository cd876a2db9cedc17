// One pool: what is wrong or that all is well, its figures, and its agents as a map and a list.

import { AgentList } from "./agent-list.js";
import { fillEmptyPool } from "./empty-pool.js";
import { judge, needsAttention, summarise } from "./health.js";
import { PoolFeed } from "./metrics-client.js";
import { copy, Meter, setShown, setText } from "./parts.js";
import { PoolMap } from "./pool-map.js";
import { browserStorage, Seen, SEEN_KEY } from "./seen.js";
import { Sentence } from "./sentence.js";
import { say } from "./text.js";
import { Toolbar } from "./toolbar.js";

/** What changed comes at most once in so much time: fast enough for the eye, and a message costs what an agent does. */
const BATCH_MS = 250;

/** The view of one pool; its interface is in app.js. */
export class PoolPage {
  feeds;
  heading;
  crumbs;
  #feed;
  #schedule;
  #seen;
  #sentence;
  #toolbar;
  #map;
  #list;
  #parts;
  #cpu;
  #memory;

  constructor(place, { pools: [pool], view, schedule }) {
    place.replaceChildren(copy("pool-page"));
    this.heading = pool.name;
    // A viewer of one pool has it at `/`, which is no step below the product's name.
    this.crumbs = view.kind === "overview" ? [] : [[pool.name, null]];
    this.#schedule = schedule;
    this.#feed = new PoolFeed({ poolId: pool.pool_id, batchMs: BATCH_MS });
    this.feeds = [this.#feed];
    const part = (selector) => place.querySelector(selector);
    this.#parts = { about: part("#about"), figures: part("#figures"), room: part("#room"), empty: part(".empty") };
    this.#seen = new Seen(pool.pool_id, browserStorage());
    this.#sentence = new Sentence(part("#sentence"), pool.pool_id, () => this.#markSeen());
    this.#cpu = new Meter(part("#figures .cpu"), say.cpu);
    this.#memory = new Meter(part("#figures .memory"), say.memory);
    this.#map = new PoolMap(part("#map"), this.#feed, this.#seen.has);
    this.#toolbar = new Toolbar(part("#toolbar"), pool.pool_id);
    part("#sentence .rest").addEventListener("click", () => this.#toolbar.filterBy("attention"));
    this.#list = new AgentList(part("#agents"), this.#toolbar, this.#feed, this.#seen.has, schedule);
    this.#list.setDensity(this.#toolbar.density);
    this.#toolbar.addEventListener("density", () => this.#list.setDensity(this.#toolbar.density));
    fillEmptyPool(this.#parts.empty, pool, location.origin);
    this.#feed.addEventListener("change", ({ detail }) => {
      this.#map.note(detail);
      this.#list.note(detail);
    });
    addEventListener("storage", ({ key }) => {
      if (key !== SEEN_KEY) return;
      this.#seen.read();
      this.#seenChanged();
    });
  }

  start() {
    this.#feed.start();
  }

  draw() {
    const { agents, departed, unheard, epoch } = this.#feed;
    const isEmpty = agents.size + departed.size + unheard.size === 0;
    setShown(this.#parts.empty, epoch !== null && isEmpty);
    this.#toolbar.setShown(!isEmpty);
    // Nothing below moves once it can be pressed.
    if (this.#parts.about.hidden) this.summary();
    this.#map.draw();
    this.#list.draw();
  }

  tick() {
    this.#map.drawAll();
    this.#list.tick();
  }

  summary() {
    if (this.#feed.epoch === null) return null;
    const summary = summarise(this.#feed, this.#seen.has);
    const { attention, trouble, unheard, cpu, memory, reporting } = summary;
    setShown(this.#parts.about, true);
    this.#sentence.show(summary);
    setShown(this.#parts.figures, reporting > 0);
    showLoad(this.#cpu, cpu);
    showLoad(this.#memory, memory);
    setText(this.#parts.room, say.room(summary));
    this.#toolbar.offer(summary);
    return { words: attention > 0 ? say.state(attention, "attention") : null, trouble, unheard };
  }

  /** Marks the losses that are not calm yet. */
  #markSeen() {
    const { departed, unheard } = this.#feed;
    const heardAt = this.#feed.heardAt();
    const all = [...departed.values(), ...[...unheard.values()].map(({ last }) => last)];
    const isNew = (metrics) => {
      const { kind, trouble } = judge(metrics, heardAt, null, this.#seen.has);
      return kind === "lost" && needsAttention(trouble);
    };
    this.#seen.add(all.filter(isNew), heardAt);
    this.#seenChanged();
  }

  #seenChanged() {
    this.summary();
    this.#map.judgeAnew();
    this.#list.judgeAnew();
    this.#schedule();
  }
}

function showLoad(meter, load) {
  if (load === null) meter.show(null);
  else meter.show(load.mean, { peak: load.max, words: say.meanAndMax(load) });
}
