// The page: which pools it shows, when it draws, and what it says about its connection. Holds no
// metrics (metrics-client.js does) and draws no agent (agent-list.js does).

import { AgentList } from "./agent-list.js";
import { summarise } from "./health.js";
import { icons } from "./icons.js";
import { attachLogin, isLoggedIn, logIn, loginProblem, logOut, noteLogin } from "./login.js";
import { fetchPools, PoolFeed, Refusal, RETRY_LAST_MS, retryDelay } from "./metrics-client.js";
import { setShown, setText } from "./parts.js";
import { PoolCard } from "./pool-card.js";
import { clockTime, say, translateDocument } from "./text.js";

/** Ages move on and lateness is judged this often. */
const TICK_MS = 1_000;
/** Figures of whole pools are worked out anew this often at most. */
const SUMMARY_MS = 250;
/** The state that the header shows is the worst of all feeds': the first of these. */
const WORST_FIRST = ["refused", "waiting", "connecting", "stopped", "silent", "live"];
/** States of a connection that was, or should be. */
const NOT_LIVE = new Set(["refused", "waiting", "silent"]);

const $ = (id) => document.getElementById(id);

/** The pool that the address names, or null for all. */
const poolId = /^\/pools\/([^/]+)$/.exec(location.pathname)?.[1] ?? null;
/** What is on the page: per pool its feed, card and, where one pool is shown, its agents. */
let views = [];
/** The connection before there is a feed. */
let boot = { state: "connecting", reason: null, retryAt: null };
let bootTimer = null;
let framePending = false;
let summaryAt = -Infinity;
let summaryTimer = null;
let announced = null;
/** When the server was seen to have restarted, until that is dismissed. */
let restartedAt = null;

start();

async function start() {
  translateDocument();
  attachLogin($("login"), loggedIn);
  $("retry").addEventListener("click", retryNow);
  $("logout").addEventListener("click", leave);
  $("restarted-close").addEventListener("click", dismissRestart);
  document.addEventListener("visibilitychange", () => document.hidden || bootTimer?.());
  addEventListener("online", () => bootTimer?.());
  setInterval(tick, TICK_MS);
  drawConnection();
  await useTokenOfAddress();
  await openPools();
}

/** A wall screen's `?token=`: out of the address first, so that it is in no history. */
async function useTokenOfAddress() {
  const address = new URL(location.href);
  const token = address.searchParams.get("token");
  if (token === null) return;
  address.searchParams.delete("token");
  history.replaceState(history.state, "", address);
  for (let attempt = 0; ; attempt += 1) {
    try {
      await logIn(token);
      return;
    } catch (error) {
      if (error instanceof Refusal && error.status < 500) {
        setText($("login-problem"), loginProblem(error));
        return;
      }
      await waitForServer(retryDelay(attempt), say.login.unreachable);
    }
  }
}

/** Gets the list of pools, however long that takes, and shows them. */
async function openPools() {
  for (let attempt = 0; views.length === 0; attempt += 1) {
    try {
      const pools = await fetchPools();
      const shown = poolId === null ? pools : pools.filter((pool) => pool.pool_id === poolId);
      if (shown.length > 0) {
        showPools(shown);
        return;
      }
      boot = { state: "stopped", reason: null, retryAt: null };
      showMessage(poolId === null ? say.noPools : say.noSuchPool(poolId), { link: poolId !== null });
      await pause(RETRY_LAST_MS);
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) {
        boot = { state: "refused", reason: error.message, retryAt: null };
        showLogin();
        return;
      }
      if (error instanceof Refusal && error.status < 500) {
        showMessage(say.refused(error.message));
        boot = { state: "refused", reason: error.message, retryAt: null };
        drawConnection();
        await pause(RETRY_LAST_MS);
      } else {
        const reason = error instanceof Refusal ? error.message : null;
        await waitForServer(retryDelay(attempt), say.unreachable(reason));
      }
    }
  }
}

async function waitForServer(delay, words) {
  showMessage(words);
  boot = { state: "waiting", reason: null, retryAt: performance.now() + delay };
  drawConnection();
  await pause(delay);
  boot = { state: "connecting", reason: words, retryAt: null };
  drawConnection();
}

/** Waits, unless `retryNow` is faster. */
function pause(delay) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, delay);
    bootTimer = () => (clearTimeout(timer), resolve());
  });
}

function retryNow() {
  if (views.length === 0) bootTimer?.();
  for (const { feed } of views) if (feed.connection.state !== "live") feed.reconnect();
}

function showPools(pools) {
  setShown($("message"), false);
  setShown($("login"), false);
  const single = pools.length === 1;
  if (poolId !== null) setText($("here"), pools[0].name);
  setText($("heading"), single ? pools[0].name : say.pools);
  views = pools.map((pool) => {
    const feed = new PoolFeed({ poolId: pool.pool_id });
    const card = new PoolCard(pool);
    const list = single ? new AgentList($("agents"), $("toolbar"), feed, location.origin, schedule) : null;
    feed.addEventListener("change", ({ detail }) => changed(list, detail));
    feed.addEventListener("connection", ({ detail }) => connectionChanged(detail));
    return { pool, feed, card, list, summary: null };
  });
  $("pools").classList.toggle("single", single);
  $("pools").replaceChildren(...views.map(({ card }) => card.element));
  setShown($("pools"), true);
  setShown($("agents"), single);
  for (const { feed } of views) feed.start();
}

function changed(list, detail) {
  list?.note(detail);
  if (detail.restarted) restarted();
  // A hidden page has no frames, but its title is seen.
  if (document.hidden && detail.kind !== "update") drawSummaries();
  schedule();
}

function connectionChanged({ status }) {
  if (status === 401) showLogin();
  drawConnection();
  schedule();
}

/** All messages between two frames are drawn in one go. */
function schedule() {
  if (framePending) return;
  framePending = true;
  requestAnimationFrame(() => {
    framePending = false;
    for (const { list } of views) list?.draw();
    summaryTimer ??= setTimeout(drawSummaries, Math.max(0, summaryAt + SUMMARY_MS - performance.now()));
  });
}

function tick() {
  for (const { list } of views) list?.tick();
  drawSummaries();
  drawConnection();
}

function drawSummaries() {
  clearTimeout(summaryTimer);
  summaryTimer = null;
  summaryAt = performance.now();
  for (const view of views) {
    view.summary = view.feed.epoch === null ? null : summarise(view.feed);
    view.card.show(view.summary, view.feed.connection);
  }
  drawTitle(connectionNow());
}

/** Title and icon tell from afar: not live, or how many are offline. */
function drawTitle({ state, reason }) {
  const known = views.filter(({ summary }) => summary !== null);
  const offline = known.reduce((sum, { summary }) => sum + summary.departed, 0);
  // An attempt after a loss is not yet a connection: the title does not flicker with each.
  const connected = state === "connecting" ? reason === null : !NOT_LIVE.has(state);
  const lost = connected ? null : needsLogin() ? say.loginNeeded : state === "silent" ? say.connection.silent() : say.disconnected;
  const place = poolId !== null && views.length === 1 ? views[0].pool.name : null;
  const title = say.title(place, offline, lost);
  if (document.title !== title) document.title = title;
  const trouble = known.some(({ summary }) => summary.trouble);
  const icon = connected ? (trouble ? icons.alert : icons.fine) : icons.off;
  if ($("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
}

/** The worst of all feeds, or the start's own. */
function connectionNow() {
  if (views.length === 0) {
    return { ...boot, retryInMs: Math.max(0, (boot.retryAt ?? 0) - performance.now()), feed: null };
  }
  const rank = ({ feed }) => WORST_FIRST.indexOf(feed.connection.state);
  const { feed } = views.reduce((worst, view) => (rank(view) < rank(worst) ? view : worst));
  return { ...feed.connection, retryInMs: feed.retryInMs(), feed };
}

function drawConnection() {
  const { state, reason, retryInMs, feed } = connectionNow();
  const words = needsLogin() ? say.loginNeeded : say.connection[state](Math.ceil(retryInMs / 1_000));
  $("connection").dataset.state = state;
  setText($("connection-text"), words);
  setShown($("logout"), isLoggedIn());
  setShown($("retry"), NOT_LIVE.has(state) && !needsLogin());
  const known = feed !== null && feed.epoch !== null;
  const away = known && state !== "live" && reason !== null;
  setShown($("stale"), away || (feed !== null && !known && reason !== null));
  const age = away ? feed.serverNow() - feed.asOf() : 0;
  if (away) setText($("stale"), state === "silent" ? say.silent(age) : say.stale(age, say.cause(reason)));
  else if (reason !== null) setText($("stale"), state === "refused" ? say.refused(reason) : say.unreachable(say.cause(reason)));
  document.body.classList.toggle("away", away);
  drawRestart(away);
  drawTitle({ state, reason });
  announce(state, reason);
}

function needsLogin() {
  return !$("login").hidden;
}

/** For screen readers: only that the connection was lost or is back, not every second of it. */
function announce(state, reason) {
  const live = state === "live";
  if (state === "connecting" || live === announced) return;
  announced = live;
  setText($("announcer"), live ? say.connection.live() : `${say.connection[state](0)} ${say.cause(reason ?? "")}`);
}

function drawRestart(away) {
  setShown($("restarted"), restartedAt !== null && !away);
  if (restartedAt === null) return;
  const unheard = views.reduce((sum, { summary }) => sum + (summary?.unheard ?? 0), 0);
  setText($("restarted-text"), say.restarted(clockTime(restartedAt), unheard));
}

function dismissRestart() {
  restartedAt = null;
  for (const { feed } of views) feed.dismissUnheard();
  drawConnection();
}

/** The server started anew: its pools may be others now. */
async function restarted() {
  restartedAt = Date.now();
  drawSummaries();
  drawConnection();
  try {
    const pools = await fetchPools();
    const shown = poolId === null ? pools : pools.filter((pool) => pool.pool_id === poolId);
    const same = (list) => JSON.stringify(list.map(({ pool_id, name }) => [pool_id, name]));
    if (same(shown) !== same(views.map(({ pool }) => pool))) location.reload();
  } catch {
    // The feeds say what is wrong.
  }
}

function showMessage(words, { link = false } = {}) {
  setShown($("message"), true);
  setText($("message-text"), words);
  setShown($("message-link"), link);
  drawConnection();
}

function showLogin() {
  if (needsLogin()) return;
  setShown($("message"), false);
  setShown($("login"), true);
  // The cookie is gone, or was none.
  noteLogin(false);
  $("token").focus();
  drawConnection();
}

function loggedIn() {
  setShown($("login"), false);
  $("main").focus();
  if (views.length === 0) openPools();
  else retryNow();
}

/** Logs out. The page is loaded anew, so that it keeps nothing of what it was allowed to see. */
async function leave() {
  try {
    await logOut();
    location.reload();
  } catch (error) {
    showMessage(say.login.stillIn(loginProblem(error)));
  }
}
