// Sorting, filtering and layout: the controls above the agents. Holds the view and keeps the
// address in step with it; shows no agent.

import { MAX_STATES, mostCommon } from "./health.js";
import { PLAIN, readView, sortedBy, writeView } from "./view.js";
import { setShown, setText } from "./parts.js";
import { say } from "./text.js";

/** The search waits for a pause in typing before it takes effect. */
const TYPING_MS = 120;
/** Always offered as filters, whether an agent is in them or not. */
const USUAL_STATES = ["busy", "idle", "late", "offline"];
/** Offered after a restart, for as long as an agent is in it. */
const UNHEARD = "unheard";

/** The controls in `element`. `changed` is called after each change of `view`. */
export class Toolbar {
  view = readView(new URLSearchParams(location.search));

  #parts;
  #changed;
  #typing = null;
  #common = [];
  #offered = new Set();

  constructor(element, changed) {
    this.#changed = changed;
    const part = (id) => element.querySelector(`#${id}`);
    this.#parts = {
      element,
      search: part("search"),
      state: part("state"),
      sort: part("sort"),
      order: part("order"),
      offline: part("offline"),
      table: part("view-table"),
      grid: part("view-grid"),
      count: part("count"),
    };
    const { search, state, sort, order, offline, table, grid } = this.#parts;
    search.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#set({ text: search.value }), TYPING_MS);
    });
    search.addEventListener("keydown", ({ key }) => key === "Escape" && this.#set({ text: "" }));
    state.addEventListener("change", () => this.#set({ state: state.value }));
    sort.addEventListener("change", () => this.sortBy(sort.value));
    order.addEventListener("click", () => this.sortBy(this.view.sort));
    offline.addEventListener("change", () => this.#set({ hideOffline: offline.checked }));
    table.addEventListener("click", () => this.#set({ layout: "table" }));
    grid.addEventListener("click", () => this.#set({ layout: "grid" }));
    addEventListener("popstate", () => {
      this.view = readView(new URLSearchParams(location.search));
      this.#draw();
      this.#changed();
    });
    this.#draw();
  }

  /** Sorts by `sort`, or the other way round when it is the sort already. */
  sortBy(sort) {
    const { descending } = sortedBy(this.view, sort);
    this.#set({ sort, descending });
  }

  /** No filter any more; order and layout stay. */
  clear() {
    const { text, state, hideOffline } = PLAIN;
    this.#set({ text, state, hideOffline });
    // The button that was pressed goes with the message that it stands in.
    this.#parts.search.focus();
  }

  /** Offers the usual states, the most common of `counts` (states with their numbers), and the chosen one. */
  offer(counts) {
    const unusual = [...counts].filter(([state]) => !USUAL_STATES.includes(state) && state !== UNHEARD);
    this.#common = mostCommon(unusual, MAX_STATES).map(([state]) => state);
    if (counts.has(UNHEARD)) this.#common.push(UNHEARD);
    this.#drawStates();
  }

  #drawStates() {
    const chosen = this.view.state === "" ? [] : [this.view.state];
    const all = new Set([...USUAL_STATES, ...this.#common, ...chosen]);
    if (all.size === this.#offered.size && [...all].every((value) => this.#offered.has(value))) return;
    this.#offered = all;
    const { state } = this.#parts;
    while (state.options.length > 1) state.options[1].remove();
    for (const value of all) state.add(new Option(say.stateName(value), value));
    state.value = this.view.state;
  }

  /** Whether `state` is among those offered. */
  offers(state) {
    return this.#offered.has(state);
  }

  /** Says how many of how many are shown. */
  count(shown, total) {
    setText(this.#parts.count, say.shown(shown, total));
  }

  /** Shows or hides the controls. */
  setShown(shown) {
    setShown(this.#parts.element, shown);
  }

  #set(change) {
    clearTimeout(this.#typing);
    // What was typed counts, though another control was faster than the pause.
    this.view = { ...this.view, text: this.#parts.search.value, ...change };
    const address = new URL(location.href);
    writeView(this.view, address.searchParams);
    history.replaceState(history.state, "", address);
    this.#draw();
    this.#changed();
  }

  #draw() {
    const { search, state, sort, order, offline, table, grid } = this.#parts;
    const { view } = this;
    if (search.value !== view.text) search.value = view.text;
    this.#drawStates();
    state.value = view.state;
    sort.value = view.sort;
    order.dataset.order = view.descending ? "desc" : "asc";
    order.setAttribute("aria-label", view.descending ? say.descending : say.ascending);
    order.title = view.descending ? say.descending : say.ascending;
    offline.checked = view.hideOffline;
    table.setAttribute("aria-pressed", String(view.layout === "table"));
    grid.setAttribute("aria-pressed", String(view.layout === "grid"));
  }
}
