// One agent on a wall screen, in full or with its name alone. Writes only what changed.

import { knownUntil, loadOf, longestOf, stateWords } from "./agent-cell.js";
import { level } from "./health.js";
import { copy, setShown, setText } from "./parts.js";
import { say } from "./text.js";

/** What stays of the end of a name that is too long, in letters: agents of one kind differ there. */
const TAIL = 6;
/** Only names of these letters are cut in the middle: others join letters, or read the other way. */
const PLAIN = /^[ -~]+$/;

export class WallTile {
  element = copy("wall-tile").firstElementChild;
  #parts;
  #cpu;
  #memory;
  #metrics = null;
  #kind = null;

  constructor() {
    const part = (name) => this.element.querySelector(`.${name}`);
    this.#parts = { mark: part("cell"), name: part("name"), badge: part("tile-state"), tasks: part("tile-tasks"), loads: part("tile-loads") };
    this.#cpu = new Bar(part("cpu"));
    this.#memory = new Bar(part("memory"));
  }

  /** Shows `metrics`, of which `judge` said `judged`, as of `now`. */
  show(metrics, judged, now, isFull) {
    const { mark, name, badge, tasks, loads } = this.#parts;
    // What was live is of before, once it is not heard after a restart: the same object, told otherwise.
    const isOther = this.#metrics !== metrics || this.#kind !== judged.kind;
    if (this.#kind !== judged.kind) {
      this.#kind = judged.kind;
      this.element.dataset.kind = judged.kind;
      mark.dataset.kind = judged.kind;
    }
    if (isOther) {
      this.#metrics = metrics;
      if (this.element.dataset.agent !== metrics.agent_id) this.element.dataset.agent = metrics.agent_id;
      showName(name, metrics.agent_name);
      const load = loadOf(metrics, judged);
      mark.style.setProperty("--load", `${Math.round(load ?? 0)}%`);
      setShown(loads, load !== null);
      if (load !== null && isFull) {
        this.#cpu.show(metrics.cpu_usage);
        this.#memory.show(metrics.memory_usage);
      }
    }
    setText(badge, stateWords(metrics, judged, now));
    if (!isFull) return;
    const number = metrics.running_tasks?.length ?? 0;
    const longest = longestOf(metrics.running_tasks, knownUntil(metrics, judged, now));
    const none = judged.kind === "lost" || judged.kind === "unheard" ? "" : say.noTask;
    setText(tasks, number === 0 ? none : say.tasksWithAge(number, longest === null ? null : longest.age));
  }
}

/** `element` has a part that is cut off where there is no room, and one that is not. */
function showName(element, name) {
  const cut = PLAIN.test(name) ? Math.max(0, name.length - TAIL) : name.length;
  setText(element.firstElementChild, name.slice(0, cut));
  setText(element.lastElementChild, name.slice(cut));
}

/** A slim bar in the seed's colours, with its figure. */
class Bar {
  #element;
  #fill;
  #value;
  #last = null;

  constructor(element) {
    this.#element = element;
    this.#fill = element.querySelector(".tile-fill");
    this.#value = element.querySelector(".tile-value");
  }

  show(load) {
    if (load === this.#last) return;
    this.#last = load;
    const now = level(load);
    if (this.#element.dataset.level !== now) this.#element.dataset.level = now;
    // Rounded down: never over a boundary at which the colour changes.
    setText(this.#value, `${Math.floor(load)} %`);
    this.#fill.style.setProperty("transform", `scaleX(${load / 100})`);
  }
}
