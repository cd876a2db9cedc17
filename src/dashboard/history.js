// What the loads of an agent were in the last quarter of an hour: what the server remembers, and
// what was heard since, in the server's steps. Times are the server's. Pure; no DOM, no clock.

/** How far back is kept, as far as the server remembers. */
export const HISTORY_MS = 15 * 60_000;
/** One value in so much time, as on the server: what comes sooner replaces the one before. */
export const STEP_MS = 10_000;
const STEPS = HISTORY_MS / STEP_MS;
/** Loads are kept as whole parts of this, which is finer than a screen shows. */
const PARTS = 60_000 / 100;
/** In place of a load: nothing is known. */
const UNKNOWN = 0xffff;
/** A value without neighbours is drawn so wide, in steps. */
const DOT_STEPS = 0.5;

/** One agent's loads: of a fixed size, whatever the agent does. */
export class History {
  /** Rings: step `n` is at `n % STEPS`. */
  #cpu = new Uint16Array(STEPS).fill(UNKNOWN);
  #memory = new Uint16Array(STEPS).fill(UNKNOWN);
  #newest = -1;
  #oldest = Infinity;
  #version = 0;

  /** Whether the server was asked for what was before; trends.js sets it. */
  isAsked = false;

  /** When the first known value was, or Infinity; in milliseconds since 1970. */
  get since() {
    return Math.max(this.#oldest, this.#newest - STEPS + 1) * STEP_MS;
  }

  /**
   * Takes the loads (percent) that were received at `at` (ms since 1970). Where nothing was heard
   * since the last, for up to `gapMs`, they are taken to have been as they were: the agent was in time.
   * An older time is ignored.
   */
  add(at, cpu, memory, gapMs) {
    const step = Math.floor(at / STEP_MS);
    if (!(step >= this.#newest) || step < 0) return;
    const last = this.#newest % STEPS;
    const repeats = this.#newest >= 0 && (step - this.#newest) * STEP_MS <= gapMs;
    const [lastCpu, lastMemory] = repeats ? [this.#cpu[last], this.#memory[last]] : [UNKNOWN, UNKNOWN];
    for (let between = Math.max(this.#newest + 1, step - STEPS + 1); between < step; between += 1) {
      this.#put(between, lastCpu, lastMemory);
    }
    this.#put(step, partsOf(cpu), partsOf(memory));
    this.#newest = step;
    this.#oldest = Math.min(this.#oldest, step);
    this.#version += 1;
  }

  /**
   * Takes what the server remembers: `cpu` and `memory` hold a value (percent) or null for each
   * step of `stepMs` up to `end` (ms since 1970), the oldest first. What was heard stays.
   */
  fill({ end, stepMs, cpu, memory }) {
    const at = (index) => Math.floor((end - (cpu.length - index - 0.5) * stepMs) / STEP_MS);
    const last = cpu.findLastIndex((load) => load !== null);
    if (last < 0) return;
    if (this.#newest < 0) this.#newest = at(last);
    for (let index = 0; index <= last; index += 1) {
      const step = at(index);
      const slot = step % STEPS;
      const isKept = step <= this.#newest && step > this.#newest - STEPS && step >= 0;
      if (!isKept || this.#cpu[slot] !== UNKNOWN || cpu[index] === null || memory[index] === null) continue;
      this.#put(step, partsOf(cpu[index]), partsOf(memory[index]));
      this.#oldest = Math.min(this.#oldest, step);
    }
    this.#version += 1;
  }

  /** Tells whether what `paths` draws is another: by what is kept, and by the step of `now`. */
  stateAt(now, windowMs) {
    return `${this.#version} ${Math.floor(now / STEP_MS)} ${Math.ceil(windowMs / STEP_MS)}`;
  }

  /**
   * Two SVG path data, of CPU and of memory, in a box `width` wide and 100 high (0 % at the bottom)
   * that spans the `windowMs` before the end of the step of `now`. Of an agent that is in time,
   * which `gapMs` tells as for `add`, the last value reaches to the end. The line breaks where
   * nothing was known.
   */
  paths(now, windowMs, gapMs, width) {
    const end = Math.floor(now / STEP_MS);
    const first = end - Math.ceil(windowMs / STEP_MS) + 1;
    const perStep = width / (end - first + 1);
    let [cpu, memory] = ["", ""];
    let open = false;
    for (let step = Math.max(first, this.#newest - STEPS + 1); step <= this.#newest; step += 1) {
      const slot = step % STEPS;
      if (step < 0 || this.#cpu[slot] === UNKNOWN) {
        open = false;
        continue;
      }
      const x = (step - first + 1) * perStep;
      const [y, z] = [heightOf(this.#cpu[slot]), heightOf(this.#memory[slot])];
      if (open) {
        cpu += `L${x.toFixed(1)} ${y}`;
        memory += `L${x.toFixed(1)} ${z}`;
      } else {
        const dot = (perStep * DOT_STEPS).toFixed(1);
        const left = (x - perStep * DOT_STEPS).toFixed(1);
        cpu += `M${left} ${y}h${dot}`;
        memory += `M${left} ${z}h${dot}`;
      }
      open = true;
    }
    const isInTime = now - (this.#newest + 1) * STEP_MS <= gapMs;
    if (open && isInTime && this.#newest < end) [cpu, memory] = [`${cpu}H${width}`, `${memory}H${width}`];
    return { cpu, memory };
  }

  #put(step, cpu, memory) {
    this.#cpu[step % STEPS] = cpu;
    this.#memory[step % STEPS] = memory;
  }
}

function partsOf(load) {
  return Math.round(load * PARTS);
}

function heightOf(parts) {
  return (100 - parts / PARTS).toFixed(1);
}
