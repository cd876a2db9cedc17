// How a pool's agents are looked at: which of them, in which order, as a table or a grid. Kept in
// the page's address, so that it survives a reload and can be sent to a colleague. Pure; no DOM.

import { needsAttention, SEVERITY, TROUBLE } from "./health.js";

/** What the agents may be sorted by. */
export const SORTS = ["trouble", "name", "state", "cpu", "memory", "tasks", "heard"];

/** Sorts that start with the largest: who asks for these looks for the most loaded, or the stalest. */
const LARGEST_FIRST = new Set(["cpu", "memory", "tasks", "heard"]);

/** The view of an address without parameters. */
export const PLAIN = Object.freeze({
  text: "",
  state: "",
  sort: "trouble",
  descending: false,
  hideOffline: false,
  layout: "table",
});

/** The view that `params` (URLSearchParams) ask for; what they don't know or spell wrong is plain. */
export function readView(params) {
  const sort = SORTS.includes(params.get("sort")) ? params.get("sort") : PLAIN.sort;
  const order = params.get("order");
  return {
    text: params.get("q") ?? "",
    state: params.get("state") ?? "",
    sort,
    descending: order === "desc" || (order !== "asc" && LARGEST_FIRST.has(sort)),
    hideOffline: params.get("offline") === "hide",
    layout: params.get("view") === "grid" ? "grid" : "table",
  };
}

/** Writes `view` into `params`; what is plain is left out, what is not ours stays. */
export function writeView(view, params) {
  const put = (name, value, plain) => (value === plain ? params.delete(name) : params.set(name, value));
  const isPlainOrder = view.sort === PLAIN.sort && view.descending === PLAIN.descending;
  put("q", view.text, PLAIN.text);
  put("state", view.state, PLAIN.state);
  put("sort", view.sort, PLAIN.sort);
  put("order", isPlainOrder ? "" : view.descending ? "desc" : "asc", "");
  put("offline", view.hideOffline ? "hide" : "", "");
  put("view", view.layout, PLAIN.layout);
}

/** `view` sorted by `sort`: in its natural direction, or the other way when it was already. */
export function sortedBy(view, sort) {
  const descending = view.sort === sort ? !view.descending : LARGEST_FIRST.has(sort);
  return { ...view, sort, descending };
}

/** Whether `view` leaves agents out. */
export function isFiltered({ text, state, hideOffline }) {
  return text.trim() !== "" || state !== "" || hideOffline;
}

/** Whether heartbeats, or time alone, can change who is shown and where. */
export function isRestless(view) {
  return view.sort !== "name" || view.state !== "" || view.text !== "";
}

/**
 * Whether `view` shows `agent`, an object with what `judge` of health.js says (`state`, `high`,
 * `trouble`) and `words()`, the text that is searched. Losses that need attention are not hidden as
 * offline.
 */
export function isShown(view, agent) {
  if (view.hideOffline && agent.trouble === TROUBLE.GONE) return false;
  if (view.state !== "" && !isInState(view.state, agent)) return false;
  return view.text === "" || agent.words().toLowerCase().includes(view.text.trim().toLowerCase());
}

/** Two filters go across the states. */
function isInState(state, agent) {
  if (state === "attention") return needsAttention(agent.trouble);
  return state === "high" ? agent.high : agent.state === state;
}

/**
 * The order of `view`, as a comparison of objects with `rank` (by name), `kind`, `trouble`, `cpu`,
 * `memory`, `tasks` and `heard`. Who has no figure comes last either way; equals go by name.
 */
export function orderOf({ sort, descending }) {
  const direction = descending ? -1 : 1;
  const key = KEYS[sort];
  return (a, b) => {
    const [left, right] = [key(a), key(b)];
    if (left === right) return sort === "name" ? 0 : a.rank - b.rank;
    if (left === null) return 1;
    if (right === null) return -1;
    return left < right ? -direction : direction;
  };
}

const KEYS = {
  trouble: (agent) => agent.trouble,
  name: (agent) => agent.rank,
  state: (agent) => SEVERITY.indexOf(agent.kind),
  cpu: (agent) => agent.cpu,
  memory: (agent) => agent.memory,
  tasks: (agent) => agent.tasks,
  heard: (agent) => (agent.heard === null ? null : -agent.heard),
};
