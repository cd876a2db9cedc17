// What the loads of each agent were, since the page was opened and for a quarter of an hour at
// most. Times are the server's. Pure; no DOM, no clock.

/** How far back is kept. */
export const HISTORY_MS = 15 * 60_000;
/** One point in so much time: what comes sooner replaces the one before. */
const STEP_MS = 5_000;
const CAPACITY = HISTORY_MS / STEP_MS;
/** Loads are kept as whole parts of this, which is finer than a screen shows. */
const PARTS = 60_000 / 100;

/** One agent's loads: of a fixed size, whatever the agent does. */
export class History {
  #steps = new Uint32Array(CAPACITY);
  #cpu = new Uint16Array(CAPACITY);
  #memory = new Uint16Array(CAPACITY);
  #newest = -1;
  #length = 0;

  /** Takes the loads (percent) that were received at `at` (ms since 1970). An older time is ignored. */
  add(at, cpu, memory) {
    const step = Math.floor(at / STEP_MS);
    const last = this.#length === 0 ? -1 : this.#steps[this.#newest];
    if (!(step >= last) || step < 0) return;
    if (step > last) {
      this.#newest = (this.#newest + 1) % CAPACITY;
      this.#length = Math.min(this.#length + 1, CAPACITY);
      this.#steps[this.#newest] = step;
    }
    this.#cpu[this.#newest] = Math.round(cpu * PARTS);
    this.#memory[this.#newest] = Math.round(memory * PARTS);
  }

  /**
   * Two SVG path data, of CPU and of memory, in a box `width` wide and 100 high (0 % at the
   * bottom) that spans the `windowMs` before `now`. The line breaks where nothing was heard for
   * longer than `gapMs`: nobody knows what was there.
   */
  paths(now, windowMs, gapMs, width) {
    let [cpu, memory] = ["", ""];
    let last = -Infinity;
    for (let index = 0; index < this.#length; index += 1) {
      const slot = (this.#newest - this.#length + 1 + index + CAPACITY) % CAPACITY;
      const at = this.#steps[slot] * STEP_MS;
      const x = Math.min(width, ((at - now + windowMs) / windowMs) * width);
      if (x < 0) continue;
      const joined = at - last <= Math.max(gapMs, 2 * STEP_MS);
      const point = (load) => `${joined ? "L" : "M"}${x.toFixed(1)} ${(100 - load / PARTS).toFixed(1)}${joined ? "" : "h.1"}`;
      cpu += point(this.#cpu[slot]);
      memory += point(this.#memory[slot]);
      last = at;
    }
    return { cpu, memory };
  }
}
