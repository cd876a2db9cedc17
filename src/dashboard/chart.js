// An agent's CPU and memory over the last quarter of an hour, large: with percent and time, gaps where
// nothing was heard, and the figures of the moment that is pointed at. Knows no feed.

import { HISTORY_MS } from "./history.js";
import { copy, fillList, setShown, setText } from "./parts.js";
import { clockTime, percent, say } from "./text.js";

/** The box that the lines are drawn in, which the page stretches: its height is 100. */
const WIDTH = 1_000;
/** The marks of the time axis are full multiples of this. */
const MARK_MS = 5 * 60_000;

/**
 * The points of a history as fetched, `{end, stepMs, cpu, memory}`: `at` is the middle of its step,
 * loads are null where nothing was heard. Those older than `HISTORY_MS` at `now` are left out.
 */
export function pointsOf({ end, stepMs, cpu, memory }, now) {
  const start = end - cpu.length * stepMs;
  const points = cpu.map((load, index) => {
    return { at: Math.min(now, start + (index + 0.5) * stepMs), cpu: load, memory: memory[index] };
  });
  return points.filter(({ at }) => at > now - HISTORY_MS);
}

/** SVG path data of the load `key` ("cpu", "memory") of `points`: 0 % at the bottom, broken at gaps. */
export function pathOf(points, key, now) {
  let path = "";
  let joined = false;
  points.forEach((point, index) => {
    const load = point[key];
    if (load !== null) {
      const place = `${xOf(point.at, now).toFixed(1)} ${(100 - load).toFixed(1)}`;
      // A point without neighbours is drawn too.
      const isAlone = !joined && (points[index + 1]?.[key] ?? null) === null;
      path += `${joined ? "L" : "M"}${place}${isAlone ? "h.1" : ""}`;
    }
    joined = load !== null;
  });
  return path;
}

/** The full multiples of `MARK_MS` in sight. */
export function marksOf(now) {
  const first = Math.ceil((now - HISTORY_MS) / MARK_MS) * MARK_MS;
  const marks = [];
  for (let at = first; at <= now; at += MARK_MS) marks.push(at);
  return marks;
}

function xOf(at, now) {
  return ((at - now + HISTORY_MS) / HISTORY_MS) * WIDTH;
}

/** A chart in `place`. */
export class Chart {
  #parts;
  #points = [];
  #now = 0;
  #last = null;
  /** Where it is pointed at, as a part of its width, or null. */
  #pointed = null;

  constructor(place) {
    place.append(copy("load-chart"));
    const part = (selector) => place.querySelector(selector);
    this.#parts = { svg: part("svg"), cpu: part(".line.cpu"), memory: part(".line.memory"), marksLine: part(".marks"), plot: part(".plot"), times: part(".times"), pointer: part(".pointer"), at: part(".at"), cpuValue: part(".cpu-value"), memoryValue: part(".memory-value"), empty: part(".no-data") };
    const { plot } = this.#parts;
    plot.addEventListener("pointermove", (event) => {
      const { left, width } = plot.getBoundingClientRect();
      this.#point(Math.min(1, Math.max(0, (event.clientX - left) / width)));
    });
    plot.addEventListener("pointerleave", () => this.#point(null));
  }

  /**
   * Shows `history` (as for `pointsOf`, null where there is none) up to `now`, and as its end `last`,
   * `{at, cpu, memory}` of the last heartbeat, or null.
   */
  show(history, now, last) {
    this.#now = now;
    this.#last = last;
    const points = history === null ? [] : pointsOf(history, now);
    // The running step's figure is of the last heartbeat, or older.
    if (last !== null) {
      while (points.length > 0 && (points.at(-1).at >= last.at || points.at(-1).cpu === null)) points.pop();
      const isNext = points.length > 0 && last.at - points.at(-1).at <= 2 * history.stepMs;
      if (points.length > 0 && !isNext) points.push({ at: last.at, cpu: null, memory: null });
      points.push(last);
    }
    this.#points = points;
    const known = points.filter(({ cpu }) => cpu !== null);
    const { svg, cpu, memory, marksLine, times, empty } = this.#parts;
    cpu.setAttribute("d", pathOf(points, "cpu", now));
    memory.setAttribute("d", pathOf(points, "memory", now));
    setShown(empty, known.length === 0);
    svg.setAttribute("aria-label", known.length === 0 ? say.chartEmpty : say.chartWords(rangeOf(known, "cpu"), rangeOf(known, "memory")));
    const marks = marksOf(now);
    marksLine.setAttribute("d", marks.map((at) => `M${xOf(at, now).toFixed(1)} 0V100`).join(""));
    fillList(times, marks, () => document.createElement("span"), (mark, at) => {
      setText(mark, clockTime(at));
      // At the ends the text stays within the chart.
      const place = xOf(at, now) / (WIDTH / 100);
      mark.style.setProperty("inset-inline-start", `${place}%`);
      mark.style.setProperty("transform", `translateX(-${place}%)`);
    });
    this.#drawPointer();
  }

  #point(pointed) {
    this.#pointed = pointed;
    this.#drawPointer();
  }

  #drawPointer() {
    const { pointer, at, cpuValue, memoryValue } = this.#parts;
    const point = this.#pointed === null ? this.#last : this.#nearest(this.#now - HISTORY_MS * (1 - this.#pointed));
    setShown(pointer, this.#pointed !== null && point !== null);
    if (!pointer.hidden) pointer.style.setProperty("inset-inline-start", `${xOf(point.at, this.#now) / (WIDTH / 100)}%`);
    setText(at, this.#pointed === null || point === null ? "" : clockTime(point.at, "medium"));
    setText(cpuValue, loadText(point?.cpu));
    setText(memoryValue, loadText(point?.memory));
  }

  #nearest(time) {
    let nearest = null;
    for (const point of this.#points) {
      if (nearest === null || Math.abs(point.at - time) < Math.abs(nearest.at - time)) nearest = point;
    }
    return nearest;
  }
}

function loadText(load) {
  return load === null || load === undefined ? "–" : percent(load);
}

function rangeOf(points, key) {
  const loads = points.map((point) => point[key]);
  return { min: Math.min(...loads), max: Math.max(...loads) };
}
