// All tasks of one agent, the longest-running first, each with how long it has run. Knows no feed.

import { ageMs, byAge } from "./health.js";
import { copy, fillList, setShown, setText } from "./parts.js";
import { clockTime, say, span } from "./text.js";

/** The tasks in `place`. */
export class TaskList {
  #parts;
  #tasks = [];

  constructor(place) {
    this.#parts = { heading: place.querySelector("h2"), none: place.querySelector(".none"), list: place.querySelector("ol") };
  }

  /** Shows `tasks`; those of an agent that `isGone` are what it was last known to run. */
  show(tasks, isGone) {
    this.#tasks = byAge(tasks);
    const { heading, none, list } = this.#parts;
    setText(heading, isGone ? say.tasksHeld(tasks.length) : say.tasksRunning(tasks.length));
    setShown(none, tasks.length === 0);
    setText(none, isGone ? say.lastHeld(0) : say.noTask);
    fillList(list, this.#tasks, () => copy("job").firstElementChild, fillJob);
  }

  /** Moves the ages on to `now`. */
  tick(now) {
    this.#tasks.forEach(({ started_at: started }, index) => {
      const age = ageMs(started, now);
      setText(this.#parts.list.children[index].querySelector(".age"), age === null ? "" : span(age));
    });
  }
}

function fillJob(item, { task_type: type, task_id: id, workspace_id: workspace, started_at: started, title, url }) {
  const part = (selector) => item.querySelector(selector);
  setText(part(".type"), type);
  setText(part(".task-id"), `#${id}`);
  setText(part(".workspace"), workspace);
  const link = part("a");
  const isLink = /^https?:\/\//i.test(url ?? "");
  if (!isLink) link.removeAttribute("href");
  else if (link.getAttribute("href") !== url) link.href = url;
  setText(link.firstElementChild, title ?? (isLink ? url : ""));
  setShown(link, title !== undefined || isLink);
  const age = part(".age");
  const at = ageMs(started, Infinity) === null ? say.startedAt(started) : say.startedAt(clockTime(started, "medium"));
  if (age.title !== at) age.title = at;
}
