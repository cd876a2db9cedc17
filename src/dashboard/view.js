// How a pool's agents are looked at: which of them, in which order, as a table or a grid. Kept in
// the page's address, so that it survives a reload and can be sent to a colleague. Pure; no DOM.

/** What the agents may be sorted by. */
export const SORTS = ["name", "state", "cpu", "memory", "tasks", "heard"];

/** Sorts that start with the largest: who asks for these looks for the most loaded, or the stalest. */
const LARGEST_FIRST = new Set(["cpu", "memory", "tasks", "heard"]);

/**
 * States by how much they want to be looked at; an agent's own word stands between, be it
 * `constructor`: nothing is inherited.
 */
const STATE_RANKS = { __proto__: null, lost: 0, late: 1, unheard: 2, busy: 3, idle: 5, offline: 6 };
const OTHER_STATE_RANK = 4;

/** The view of an address without parameters. */
export const PLAIN = Object.freeze({
  text: "",
  state: "",
  sort: "name",
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

/** Whether heartbeats, or time alone, can change who is shown and where. */
export function isRestless(view) {
  return view.sort !== "name" || view.state !== "" || view.text !== "";
}

/**
 * Whether `view` shows `agent`, an object with `state` (its own word, `late`, `unheard` or `offline`) and
 * `words()`, the text that is searched.
 */
export function isShown(view, agent) {
  if (view.hideOffline && agent.state === "offline") return false;
  if (view.state !== "" && agent.state !== view.state) return false;
  return view.text === "" || agent.words().toLowerCase().includes(view.text.trim().toLowerCase());
}

/**
 * The order of `view`, as a comparison of objects with `rank` (by name), `state`, `lost`, `cpu`,
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
  name: (agent) => agent.rank,
  state: (agent) => (agent.lost ? STATE_RANKS.lost : (STATE_RANKS[agent.state] ?? OTHER_STATE_RANK)),
  cpu: (agent) => agent.cpu,
  memory: (agent) => agent.memory,
  tasks: (agent) => agent.tasks,
  heard: (agent) => (agent.heard === null ? null : -agent.heard),
};
