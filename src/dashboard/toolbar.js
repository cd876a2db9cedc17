// Filtering, sorting and layout: the controls above the agents. Holds the view and keeps the
// address in step with it; shows no agent.

import { poolHref } from "./address.js";
import { Chips } from "./chips.js";
import { isFiltered, PLAIN, readView, sortedBy, writeView } from "./view.js";
import { setShown, setText } from "./parts.js";
import { say } from "./text.js";

/** The search waits for a pause in typing before it takes effect. */
const TYPING_MS = 120;
/** What a filter leaves is told to screen readers once it has stood for so long. */
const ANNOUNCE_MS = 700;
/** Where the browser keeps `density`. */
const DENSITY_KEY = "agent-metrics-density";
/** Where a key is text. */
const FIELDS = "input, select, textarea, [contenteditable]";

/**
 * The controls in `element`, of the pool `poolId`. Emits `change` after each change of `view`, and
 * `density` after each of `density`.
 */
export class Toolbar extends EventTarget {
  view = readView(new URLSearchParams(location.search));
  /** `compact` or `roomy`. */
  density = readDensity();

  #parts;
  #chips;
  #summary = { states: [], others: 0, attention: 0 };
  #typing = null;
  #announcing = null;

  constructor(element, poolId) {
    super();
    const part = (id) => element.querySelector(`#${id}`);
    const ids = ["fold", "search", "sort", "order", "offline", "count", "results", "density"];
    this.#parts = { element, ...Object.fromEntries(ids.map((id) => [id, part(id)])), table: part("view-table"), grid: part("view-grid") };
    this.#chips = new Chips(part("chips"), (state) => this.filterBy(state === this.view.state ? "" : state));
    const { fold, search, sort, order, offline, density, table, grid } = this.#parts;
    search.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#set({ text: search.value }), TYPING_MS);
    });
    search.addEventListener("keydown", ({ key }) => key === "Escape" && this.#set({ text: "" }));
    sort.addEventListener("change", () => this.sortBy(sort.value));
    order.addEventListener("click", () => this.sortBy(this.view.sort));
    offline.addEventListener("change", () => this.#set({ hideOffline: offline.checked }));
    table.addEventListener("click", () => this.#set({ layout: "table" }));
    grid.addEventListener("click", () => this.#set({ layout: "grid" }));
    density.addEventListener("click", () => this.#setDensity(this.density === "roomy" ? "compact" : "roomy"));
    fold.addEventListener("click", () => this.#unfold(!element.classList.contains("open")));
    // No filter reaches the wall. At `/`, where a viewer of one pool has it, the query alone asks for none.
    part("view-wall").href = `${poolHref(poolId)}?view=wall`;
    document.addEventListener("keydown", (event) => this.#keyPressed(event));
    addEventListener("popstate", () => this.#wentBack());
    this.#draw();
  }

  /** Sorts by `sort`, or the other way round when it is the sort already. */
  sortBy(sort) {
    const { descending } = sortedBy(this.view, sort);
    this.#set({ sort, descending });
  }

  /** Shows only agents in `state`, a filter's key; all when it is empty. */
  filterBy(state) {
    this.#set({ state });
  }

  /** No filter any more; order and layout stay. */
  clear() {
    const { text, state, hideOffline } = PLAIN;
    this.#set({ text, state, hideOffline });
    // The button that was pressed goes with the message that it stands in.
    this.#focusSearch();
  }

  /** Offers the states of `summary` as filters, and the chosen one. */
  offer(summary) {
    this.#summary = summary;
    this.#chips.show(summary, this.view.state);
  }

  /** Says how many of how many are shown. */
  count(shown, total) {
    setText(this.#parts.count, isFiltered(this.view) ? say.shown(shown, total) : "");
    if (this.#announcing !== null) this.#announceSoon(say.shown(shown, total));
  }

  /** Shows or hides the controls. */
  setShown(shown) {
    setShown(this.#parts.element, shown);
  }

  #wentBack() {
    this.view = readView(new URLSearchParams(location.search));
    this.#draw();
    this.dispatchEvent(new Event("change"));
  }

  #set(change) {
    clearTimeout(this.#typing);
    const before = this.view;
    // What was typed counts, though another control was faster than the pause.
    this.view = { ...this.view, text: this.#parts.search.value, ...change };
    const address = new URL(location.href);
    writeView(this.view, address.searchParams);
    history.replaceState(history.state, "", address);
    if (["text", "state", "hideOffline"].some((name) => before[name] !== this.view[name])) this.#announceSoon("");
    this.#draw();
    this.dispatchEvent(new Event("change"));
  }

  /** For screen readers: what a filter left, not what heartbeats change. */
  #announceSoon(words) {
    clearTimeout(this.#announcing);
    this.#announcing = setTimeout(() => {
      this.#announcing = null;
      setText(this.#parts.results, words);
    }, ANNOUNCE_MS);
  }

  #keyPressed(event) {
    const { key, ctrlKey, metaKey, altKey, target } = event;
    if (key !== "/" || ctrlKey || metaKey || altKey || target.closest?.(FIELDS)) return;
    if (this.#parts.element.hidden) return;
    event.preventDefault();
    this.#focusSearch();
  }

  #focusSearch() {
    this.#unfold(true);
    this.#parts.search.focus();
  }

  /** On a telephone the controls are folded behind one button; elsewhere they are in sight anyway. */
  #unfold(open) {
    this.#parts.element.classList.toggle("open", open);
    this.#parts.fold.setAttribute("aria-expanded", String(open));
  }

  #setDensity(density) {
    this.density = density;
    try {
      localStorage.setItem(DENSITY_KEY, density);
    } catch {
      // It holds for as long as the page is open.
    }
    this.#draw();
    this.dispatchEvent(new Event("density"));
  }

  #draw() {
    const { search, sort, order, offline, density, table, grid } = this.#parts;
    const { view } = this;
    if (search.value !== view.text) search.value = view.text;
    this.#chips.show(this.#summary, view.state);
    sort.value = view.sort;
    order.dataset.order = view.descending ? "desc" : "asc";
    order.setAttribute("aria-label", view.descending ? say.descending : say.ascending);
    order.title = view.descending ? say.descending : say.ascending;
    offline.checked = view.hideOffline;
    table.setAttribute("aria-pressed", String(view.layout === "table"));
    grid.setAttribute("aria-pressed", String(view.layout === "grid"));
    density.setAttribute("aria-pressed", String(this.density === "roomy"));
  }
}

function readDensity() {
  try {
    return localStorage.getItem(DENSITY_KEY) === "roomy" ? "roomy" : "compact";
  } catch {
    return "compact";
  }
}
