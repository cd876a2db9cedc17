// What frames every view: where the reader is, whether what they see is live, title and icon, and the
// notice that the server restarted. Draws what it is told, and decides nothing.

import { icons } from "./icons.js";
import { isLoggedIn } from "./login.js";
import { setShown, setText } from "./parts.js";
import { clockTime, say } from "./text.js";

/** The state that the header shows is the worst of all feeds': the first of these. */
const WORST_FIRST = ["refused", "waiting", "connecting", "stopped", "silent", "live"];
/** States of a connection that was, or should be. */
const NOT_LIVE = new Set(["refused", "waiting", "silent"]);

const $ = (id) => document.getElementById(id);

/** The connection of the worst of `feeds`, with that feed. */
export function worstOf(feeds) {
  const rank = ({ connection }) => WORST_FIRST.indexOf(connection.state);
  const feed = feeds.reduce((worst, next) => (rank(next) < rank(worst) ? next : worst));
  return { ...feed.connection, retryInMs: feed.retryInMs(), feed };
}

/** `crumbs`: the steps below the product's name, each a text and an address, null for the last. */
export function drawPlace(heading, crumbs) {
  setText($("heading"), heading);
  const list = $("crumbs");
  while (list.childElementCount > crumbs.length) list.lastElementChild.remove();
  crumbs.forEach(([text, href], index) => {
    const tag = href === null ? "BDI" : "A";
    let crumb = list.children[index];
    if (crumb?.tagName !== tag) {
      const made = document.createElement(tag);
      if (crumb === undefined) list.append(made);
      else crumb.replaceWith(made);
      crumb = made;
    }
    setText(crumb, text);
    if (href === null) crumb.setAttribute("aria-current", "page");
    else if (crumb.getAttribute("href") !== href) crumb.setAttribute("href", href);
  });
}

/** Whether the page is connected, asks for a login, and what it shows is of some time ago. */
export class Header {
  #announced = null;

  /**
   * `connection` is as `worstOf` says, `feed` null before there is one; true when what is shown is of
   * the past.
   */
  draw({ state, reason, retryInMs, feed }, loginNeeded) {
    const words = loginNeeded ? say.loginNeeded : say.connection[state](Math.ceil(retryInMs / 1_000));
    $("connection").dataset.state = state;
    setText($("connection-text"), words);
    setShown($("logout"), isLoggedIn());
    setShown($("retry"), NOT_LIVE.has(state) && !loginNeeded);
    const known = feed !== null && feed.epoch !== null;
    const away = known && state !== "live" && reason !== null;
    setShown($("stale"), away || (feed !== null && !known && reason !== null));
    const age = away ? feed.serverNow() - feed.asOf() : 0;
    if (away) setText($("stale"), state === "silent" ? say.silent(age) : say.stale(age, say.cause(reason)));
    else if (reason !== null) setText($("stale"), state === "refused" ? say.refused(say.cause(reason)) : say.unreachable(say.cause(reason)));
    document.body.classList.toggle("away", away);
    this.#announce(state, reason);
    return away;
  }

  /** Title and icon tell from afar: not live, or what is wrong. `summary` is a view's, or null. */
  drawTitle({ state, reason }, loginNeeded, crumbs, summary) {
    // An attempt after a loss is not yet a connection: the title does not flicker with each.
    const connected = state === "connecting" ? reason === null : !NOT_LIVE.has(state);
    const lost = connected ? null : loginNeeded ? say.loginNeeded : state === "silent" ? say.connection.silent() : say.disconnected;
    const title = say.title(lost, summary?.words ?? null, crumbs.map(([text]) => text).reverse());
    if (document.title !== title) document.title = title;
    const icon = connected ? (summary?.trouble ? icons.alert : icons.fine) : icons.off;
    if ($("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
  }

  /**
   * `at` is when the server was seen to have restarted, null to hide the notice; `words` makes its text
   * of the time and of how many agents were not heard since.
   */
  drawRestart(at, unheard, words) {
    setShown($("restarted"), at !== null);
    if (at !== null) setText($("restarted-text"), words(clockTime(at), unheard));
  }

  /** For screen readers: only that the connection was lost or is back, not every second of it. */
  #announce(state, reason) {
    const live = state === "live";
    if (state === "connecting" || live === this.#announced) return;
    this.#announced = live;
    setText($("announcer"), live ? say.connection.live() : `${say.connection[state](0)} ${say.cause(reason ?? "")}`);
  }
}
