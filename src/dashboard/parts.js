// Small pieces of the page, made once and updated in place: only what changed is written.

import { level } from "./health.js";
import { percent } from "./text.js";

const templates = new Map();

/** A copy of what is in the template `id`, without the line breaks between its elements. */
export function copy(id) {
  if (!templates.has(id)) {
    const { content } = document.getElementById(id);
    const texts = document.createTreeWalker(content, NodeFilter.SHOW_TEXT);
    const breaks = [];
    while (texts.nextNode()) if (/^\s*\n\s*$/.test(texts.currentNode.data)) breaks.push(texts.currentNode);
    for (const text of breaks) text.remove();
    templates.set(id, content);
  }
  return templates.get(id).cloneNode(true);
}

/** Sets the text of `element`. Text from agents goes onto the page this way and no other. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows or hides `element`. */
export function setShown(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/**
 * A bar with its value beside it. For the load of many, `peak` is a mark at the highest, `note`
 * stands beside the value, and `words` say all of it to who cannot see the bar.
 */
export class Meter {
  #meter;
  #fill;
  #peak;
  #value;
  #note;
  #last = null;

  constructor(place, label) {
    place.append(copy("meter"));
    this.#meter = place.querySelector(".meter");
    this.#fill = place.querySelector(".fill");
    this.#peak = place.querySelector(".peak");
    this.#value = place.querySelector(".value");
    this.#note = place.querySelector(".note");
    this.#meter.setAttribute("aria-label", label);
    this.show(null);
  }

  /** `load` is null where there is nothing to show. */
  show(load, { peak = null, note = "", words = null } = {}) {
    const text = load === null ? "–" : percent(load);
    const key = `${text} ${load} ${peak}`;
    if (key === this.#last) return;
    this.#last = key;
    setText(this.#value, text);
    setText(this.#note, note);
    const now = load === null ? "none" : level(load);
    if (this.#meter.dataset.level !== now) this.#meter.dataset.level = this.#value.dataset.level = now;
    this.#meter.setAttribute("aria-valuenow", load === null ? "0" : load.toFixed(1));
    this.#meter.setAttribute("aria-valuetext", words ?? text);
    // Not a transform: each is a layer's property, and so many cost more than a layout within the bar.
    this.#fill.style.width = `${load ?? 0}%`;
    setShown(this.#peak, peak !== null);
    if (peak === null) return;
    this.#peak.style.insetInlineStart = `${peak}%`;
    this.#peak.dataset.level = level(peak);
  }
}

/** As many children of `list` as there are `items`, each made by `make` and filled by `fill`. */
export function fillList(list, items, make, fill) {
  while (list.childElementCount > items.length) list.lastElementChild.remove();
  while (list.childElementCount < items.length) list.append(make());
  items.forEach((item, index) => fill(list.children[index], item, index));
}
