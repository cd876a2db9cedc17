// How many agents are in which state: a row of buttons, the worst state first, each of which shows
// only those agents.

import { setText } from "./parts.js";
import { say } from "./text.js";

/** Buttons come and go this often at most: one that jumps away cannot be pressed. */
const SETTLE_MS = 2_000;

/** The buttons in `place`; `press` is called with the state of the one that is pressed. */
export class Chips {
  #place;
  #press;
  #chips = new Map();
  #chosen = "";
  #settledAt = -Infinity;

  constructor(place, press) {
    this.#place = place;
    this.#press = press;
  }

  /** Shows `states` and `others` of a summary, and `chosen`, the filter, though nobody may be in it. */
  show({ states, others, attention }, chosen) {
    const items = states.map(({ state, kind, number, calm }) => [state, calm ? "offline" : kind, say.state(number, state)]);
    if (chosen !== "" && !states.some(({ state }) => state === chosen)) {
      items.unshift([chosen, "other", say.state(chosen === "attention" ? attention : 0, chosen)]);
    }
    // No state is empty, so this key is free.
    if (others > 0) items.push(["", "other", say.others(others)]);
    if (!this.#settle(new Set(items.map(([state]) => state)), chosen)) {
      for (const item of items) if (this.#chips.has(item[0])) this.#show(item, chosen);
      return;
    }
    const focused = this.#place.contains(document.activeElement) ? document.activeElement : null;
    items.forEach((item, index) => {
      const chip = this.#show(item, chosen);
      if (this.#place.children[index] !== chip) this.#place.insertBefore(chip, this.#place.children[index] ?? null);
    });
    // An element that is moved loses the keyboard's focus.
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  #show([state, kind, text], chosen) {
    let chip = this.#chips.get(state);
    if (chip === undefined) {
      chip = document.createElement(state === "" ? "span" : "button");
      chip.className = "chip";
      if (state !== "") {
        chip.type = "button";
        chip.dataset.state = state;
        chip.addEventListener("click", () => this.#press(state));
      }
      this.#chips.set(state, chip);
    }
    if (chip.dataset.kind !== kind) chip.dataset.kind = kind;
    const pressed = String(state === chosen);
    if (state !== "" && chip.ariaPressed !== pressed) chip.ariaPressed = pressed;
    setText(chip, text);
    return chip;
  }

  /**
   * Whether the buttons may be those of `states` now; removes the others. Agents may invent a state
   * with each heartbeat.
   */
  #settle(states, chosen) {
    const isSame = states.size === this.#chips.size && [...states].every((state) => this.#chips.has(state));
    if (isSame) return true;
    const now = performance.now();
    if (chosen === this.#chosen && now < this.#settledAt + SETTLE_MS) return false;
    this.#chosen = chosen;
    this.#settledAt = now;
    for (const [state, chip] of this.#chips) {
      if (states.has(state)) continue;
      const hadFocus = chip === document.activeElement;
      chip.remove();
      this.#chips.delete(state);
      if (hadFocus) this.#place.focus();
    }
    return true;
  }
}
