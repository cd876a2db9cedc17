// All pools that the viewer may see, a card each, over one connection: those that need someone first,
// the rest in the configuration's order. Draws only what changed.

import { ageMs, LOSS_MS, needsOf } from "./health.js";
import { OverviewFeed } from "./metrics-client.js";
import { copy, setShown, setText } from "./parts.js";
import { PoolCard } from "./pool-card.js";
import { browserStorage, readMarks, SEEN_KEY } from "./seen.js";
import { say } from "./text.js";

/** With more pools than this there is a filter: fewer are found at a look. */
const MOST_UNFILTERED = 12;

/** The view of all pools; its interface is in app.js. */
export class Overview {
  feeds;
  heading = say.pools;
  crumbs = [];
  sayRestarted = say.restartedPools;
  #feed = new OverviewFeed();
  #parts;
  #schedule;
  /** By pool: its card, and what it asks for. */
  #cards = new Map();
  #needs = new Map();
  /** What is to be drawn: ids of pools, or null for all. */
  #changed = null;
  #marks = readMarks(browserStorage());
  /** By pool: how many agents it had before the server restarted, and has now. */
  #before = new Map();
  #agents = new Map();

  constructor(place, { schedule }) {
    place.replaceChildren(copy("overview-page"));
    this.feeds = [this.#feed];
    this.#schedule = schedule;
    const part = (selector) => place.querySelector(selector);
    this.#parts = { about: part(".about"), sentence: part(".sentence"), headline: part(".headline"), search: part("#search"), field: part(".field"), cards: part("#pools"), count: part("#count"), nothing: part("#nothing") };
    this.#parts.search.value = new URLSearchParams(location.search).get("q") ?? "";
    this.#parts.search.addEventListener("input", () => this.#filtered());
    place.querySelector("#clear").addEventListener("click", () => this.#clear());
    this.#feed.addEventListener("change", ({ detail }) => this.#note(detail));
    addEventListener("keydown", (event) => this.#key(event));
    addEventListener("storage", ({ key }) => {
      if (key !== SEEN_KEY) return;
      this.#marks = readMarks(browserStorage());
      this.#judge(this.#feed.pools.keys());
      this.#changed = null;
      schedule();
    });
  }

  start() {
    this.#feed.start();
  }

  draw() {
    if (this.#feed.epoch === null) return;
    const { pools } = this.#feed;
    const ids = this.#changed ?? pools.keys();
    this.#changed = new Set();
    for (const id of ids) this.#card(id).show(pools.get(id), this.#needs.get(id));
    if (this.#cards.size > pools.size) this.#sweep();
    this.#place();
    this.#drawHeadline();
  }

  tick() {}

  summary() {
    if (this.#feed.epoch === null) return null;
    const { attention } = this.#totals();
    const words = attention > 0 ? say.state(attention, "attention") : null;
    return { words, trouble: attention > 0, unheard: this.#missing() };
  }

  /** All pools in figures. */
  #totals() {
    const total = { pools: this.#feed.pools.size, agents: 0, troubled: 0, attention: 0, tasksLost: 0 };
    for (const [id, { attention, tasksLost }] of this.#needs) {
      total.agents += this.#feed.pools.get(id)?.agents.total ?? 0;
      total.attention += attention;
      total.tasksLost += tasksLost;
      if (attention > 0) total.troubled += 1;
    }
    return total;
  }

  #drawHeadline() {
    const { about, sentence, headline } = this.#parts;
    const total = this.#totals();
    const tone = total.attention > 0 ? "trouble" : total.agents > 0 ? "calm" : "vacant";
    if (sentence.dataset.tone !== tone) sentence.dataset.tone = tone;
    setText(headline, say.poolsHeadline(total));
    setShown(about, true);
  }

  #note({ kind, poolIds, restarted }) {
    if (restarted) this.#before = new Map(this.#agents);
    if (kind === "snapshot") {
      this.#changed = null;
      this.#agents.clear();
      this.#needs.clear();
    } else for (const id of poolIds) this.#changed?.add(id);
    for (const id of poolIds ?? this.#feed.pools.keys()) this.#agents.set(id, this.#feed.pools.get(id).agents.total);
    this.#judge(poolIds ?? this.#feed.pools.keys());
  }

  /** Not only when it draws: a hidden page has no frames, but its title is seen. */
  #judge(ids) {
    for (const id of ids) {
      const pool = this.#feed.pools.get(id);
      this.#needs.set(id, needsOf(pool, this.#unseen(pool)));
    }
  }

  /** How many agents fewer there are than before a restart, at least: which, the overview cannot know. */
  #missing() {
    let missing = 0;
    for (const [id, before] of this.#before) missing += Math.max(0, before - (this.#agents.get(id) ?? 0));
    return missing;
  }

  /** How many of the losses of `pool` nobody has marked: none when the last is, for that marks all. */
  #unseen({ pool_id: id, lost, last_loss_at: last }) {
    if (lost === 0) return 0;
    const now = this.#feed.heardAt();
    const marks = (this.#marks.get(id) ?? []).filter((at) => (ageMs(at, now) ?? Infinity) <= LOSS_MS);
    // A mark has the time of the message that told of the loss, not before the loss.
    if (marks.some((at) => Date.parse(at) >= Date.parse(last))) return 0;
    return Math.max(1, lost - marks.length);
  }

  /** On the page before it is drawn: its map has a width then. */
  #card(id) {
    let card = this.#cards.get(id);
    if (card === undefined) {
      card = new PoolCard(id);
      this.#cards.set(id, card);
      this.#parts.cards.append(card.element);
    }
    return card;
  }

  #sweep() {
    for (const [id, card] of this.#cards) {
      if (this.#feed.pools.has(id)) continue;
      card.remove();
      this.#cards.delete(id);
    }
  }

  /** Puts the cards in order, moving only those that are not in their place, and filters them. */
  #place() {
    const { cards, field, search, count, nothing } = this.#parts;
    const ids = [...this.#feed.pools.keys()];
    const needsSomeone = (id) => this.#needs.get(id).attention > 0;
    const order = [...ids.filter(needsSomeone), ...ids.filter((id) => !needsSomeone(id))];
    const focused = cards.contains(document.activeElement) ? document.activeElement : null;
    let next = cards.firstElementChild;
    for (const id of order) {
      const { element } = this.#cards.get(id);
      if (element === next) next = next.nextElementSibling;
      else cards.insertBefore(element, next);
    }
    // An element that is moved loses the keyboard's focus.
    if (focused !== null && document.activeElement !== focused) focused.focus({ preventScroll: true });
    const isFiltered = ids.length > MOST_UNFILTERED;
    setShown(field, isFiltered);
    const text = isFiltered ? search.value.trim().toLowerCase() : "";
    let shown = 0;
    for (const id of ids) {
      const isShown = `${this.#feed.pools.get(id).name}\n${id}`.toLowerCase().includes(text);
      setShown(this.#cards.get(id).element, isShown);
      if (isShown) shown += 1;
    }
    setText(count, text === "" ? "" : say.shown(shown, ids.length));
    setShown(nothing, shown === 0);
  }

  #filtered() {
    const address = new URL(location.href);
    if (this.#parts.search.value === "") address.searchParams.delete("q");
    else address.searchParams.set("q", this.#parts.search.value);
    history.replaceState(history.state, "", address);
    this.#schedule();
  }

  #clear() {
    this.#parts.search.value = "";
    this.#filtered();
    this.#parts.search.focus();
  }

  /** `/` goes to the filter, Escape empties it. */
  #key(event) {
    const { search, field } = this.#parts;
    if (event.target === search) {
      if (event.key === "Escape" && search.value !== "") this.#clear();
      return;
    }
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || field.hidden) return;
    if (event.target.closest?.("input, textarea, select")) return;
    event.preventDefault();
    search.focus();
  }
}
