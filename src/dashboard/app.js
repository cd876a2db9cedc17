// The page's frame: finds out who looks and which pools there are, chooses the view that the address
// asks for, and says when to draw. Holds no metrics (metrics-client.js does) and draws no agent.

import { viewOf } from "./address.js";
import { AgentPage } from "./agent-page.js";
import { LOSS_MS } from "./health.js";
import { drawPlace, Header, worstOf } from "./header.js";
import { attachLogin, logIn, loginProblem, logOut, noteLogin, showProblem } from "./login.js";
import { fetchPools, Refusal, RETRY_LAST_MS, retryDelay } from "./metrics-client.js";
import { Overview } from "./overview.js";
import { setShown, setText } from "./parts.js";
import { PoolPage } from "./pool-page.js";
import { say, translateDocument } from "./text.js";
import { WallPage } from "./wall.js";

/** Ages move on and lateness is judged this often. */
const TICK_MS = 1_000;
/** Figures of whole pools are worked out anew this often at most. */
const SUMMARY_MS = 250;
/** Or so much sooner, in a frame that draws agents anyway: batches do not come to the millisecond. */
const SUMMARY_SLACK_MS = 100;

/** The notice of a restart stays this long once every agent was heard again: to be read. */
const RESTART_READ_MS = 20_000;

/**
 * The views. Each is a class:
 *
 * - `new Page(place, {pools, view, schedule})` fills the element `place`. `pools` are entries of the
 *   pool list, those that the address asks for; `view` is what `viewOf` says; `schedule()` asks for a
 *   `draw` in the next frame, which every change of a feed does by itself.
 * - `feeds`: what it is connected to, at least one; each emits `connection` and `change` as a
 *   `PoolFeed` does and has its `connection`, `epoch`, `asOf()`, `heardAt()`, `serverNow()`,
 *   `retryInMs()` and `reconnect()`.
 * - `heading`, the text of the `h1`, and `crumbs`, the steps below the product's name, each
 *   `[text, href]`, `href` null for the last. Both may change.
 * - `sayRestarted(time, unheard)`, where the view knows less than who is unheard: `say.restarted` else.
 * - `start()` connects. A view stays for as long as the document.
 * - `draw()` shows what changed; in an animation frame. `tick()` moves ages on; once a second.
 * - `summary()` works out figures of the whole, shows them, and returns what title and icon tell:
 *   `words` or null ("2 need attention"), `trouble`, and `unheard` (agents not heard since a restart);
 *   null as long as nothing is known. At most every `SUMMARY_MS`.
 */
const PAGES = { overview: Overview, pool: PoolPage, agent: AgentPage, wall: WallPage };

const $ = (id) => document.getElementById(id);

const view = viewOf(location.href);
const header = new Header();
/** The view, once the pools are known. */
let page = null;
let pools = [];
/** The connection before there is a feed. */
let boot = { state: "connecting", reason: null, retryAt: null };
let bootTimer = null;
let framePending = false;
let summary = null;
let summaryAt = -Infinity;
let summaryTimer = null;
/** When the server was seen to have restarted, until the notice goes, and since when all are back. */
let restartedAt = null;
let completeAt = null;

start();

async function start() {
  translateDocument();
  attachLogin($("login"), loggedIn);
  $("retry").addEventListener("click", retryPressed);
  $("logout").addEventListener("click", leave);
  $("restarted-close").addEventListener("click", dismissRestart);
  document.addEventListener("visibilitychange", () => document.hidden || bootTimer?.());
  addEventListener("online", () => bootTimer?.());
  setInterval(tick, TICK_MS);
  drawHeader();
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
        showProblem($("login"), loginProblem(error));
        return;
      }
      await waitForServer(retryDelay(attempt), say.login.unreachable);
    }
  }
}

/** The pools that the address asks for, of those that the viewer may see. */
async function fetchShownPools() {
  const all = await fetchPools();
  if (view.poolIds === null) return all;
  return view.poolIds.flatMap((id) => all.filter((pool) => pool.pool_id === id));
}

/** Gets the list of pools, however long that takes, and shows them. */
async function openPools() {
  for (let attempt = 0; page === null; attempt += 1) {
    try {
      pools = await fetchShownPools();
      if (pools.length > 0) {
        showPage();
        return;
      }
      boot = { state: "stopped", reason: null, retryAt: null };
      showMessage(view.poolIds === null ? say.noPools : say.noSuchPool(view.poolIds.join(", ")), { link: view.poolIds !== null });
      await pause(RETRY_LAST_MS);
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) {
        boot = { state: "refused", reason: error.message, retryAt: null };
        showLogin();
        return;
      }
      if (error instanceof Refusal && error.status < 500) {
        showMessage(say.refused(say.cause(error.message)));
        boot = { state: "refused", reason: error.message, retryAt: null };
        drawHeader();
        await pause(RETRY_LAST_MS);
      } else {
        const reason = error instanceof Refusal ? say.cause(error.message) : null;
        await waitForServer(retryDelay(attempt), say.unreachable(reason));
      }
    }
  }
}

async function waitForServer(delay, words) {
  showMessage(words);
  boot = { state: "waiting", reason: null, retryAt: performance.now() + delay };
  drawHeader();
  await pause(delay);
  boot = { state: "connecting", reason: words, retryAt: null };
  drawHeader();
}

/** Waits, unless `retryNow` is faster. */
function pause(delay) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, delay);
    bootTimer = () => (clearTimeout(timer), resolve());
  });
}

function retryNow() {
  if (page === null) bootTimer?.();
  else for (const feed of page.feeds) if (feed.connection.state !== "live") feed.reconnect();
}

function retryPressed() {
  retryNow();
  // The button goes while the page tries.
  $("main").focus({ preventScroll: true });
}

/** A viewer of one pool goes straight to it. */
function showPage() {
  setShown($("message"), false);
  setShown($("login"), false);
  const kind = view.kind === "overview" && pools.length === 1 ? "pool" : view.kind;
  document.body.dataset.page = kind;
  page = new PAGES[kind]($("page"), { pools, view, schedule });
  for (const feed of page.feeds) {
    feed.addEventListener("change", ({ detail }) => changed(detail));
    feed.addEventListener("connection", ({ detail }) => connectionChanged(detail));
  }
  setShown($("page"), true);
  page.start();
  drawSummary();
}

function changed({ kind, restarted }) {
  if (restarted) serverRestarted();
  // A hidden page has no frames, but its title is seen.
  if (document.hidden && kind !== "update") drawSummary();
  schedule();
}

function connectionChanged({ status }) {
  if (status === 401) showLogin();
  drawHeader();
  schedule();
}

/** All messages between two frames are drawn in one go. */
function schedule() {
  if (framePending) return;
  framePending = true;
  requestAnimationFrame(() => {
    framePending = false;
    page?.draw();
    const left = summaryAt + SUMMARY_MS - performance.now();
    // A frame of its own costs as much again: the next batch's is waited for.
    if (left <= SUMMARY_SLACK_MS) drawSummary();
    else summaryTimer ??= setTimeout(drawSummary, SUMMARY_MS + SUMMARY_SLACK_MS);
  });
}

function tick() {
  page?.tick();
  drawSummary();
  endRestart();
  drawHeader();
}

function drawSummary() {
  clearTimeout(summaryTimer);
  summaryTimer = null;
  summaryAt = performance.now();
  if (page === null) return;
  summary = page.summary();
  drawPlace(page.heading, page.crumbs);
  drawTitle(connectionNow());
}

function drawTitle(connection) {
  header.drawTitle(connection, needsLogin(), page?.crumbs ?? [], summary);
}

/** The worst of all feeds, or the start's own. */
function connectionNow() {
  if (page !== null) return worstOf(page.feeds);
  return { ...boot, retryInMs: Math.max(0, (boot.retryAt ?? 0) - performance.now()), feed: null };
}

function drawHeader() {
  const connection = connectionNow();
  const away = header.draw(connection, needsLogin());
  header.drawRestart(away ? null : restartedAt, summary?.unheard ?? 0, page?.sayRestarted ?? say.restarted);
  drawTitle(connection);
}

function needsLogin() {
  return !$("login").hidden;
}

/** The notice of a restart goes by itself: once all were heard again, or with those who are not trouble any more. */
function endRestart() {
  if (restartedAt === null || summary === null) return;
  completeAt = summary.unheard === 0 ? (completeAt ?? Date.now()) : null;
  const isRead = completeAt !== null && Date.now() - completeAt >= RESTART_READ_MS;
  if (isRead) restartedAt = null;
  // What was known last stays to be seen as long as there is nothing newer.
  else if (Date.now() - restartedAt > LOSS_MS && connectionNow().state === "live") forgetUnheard();
}

function forgetUnheard() {
  restartedAt = null;
  for (const feed of page.feeds) feed.dismissUnheard?.();
}

function dismissRestart() {
  forgetUnheard();
  drawHeader();
  // The button that was pressed goes with the notice.
  $("main").focus({ preventScroll: true });
}

/** The server started anew: its pools may be others now. */
async function serverRestarted() {
  restartedAt = Date.now();
  completeAt = null;
  drawSummary();
  drawHeader();
  try {
    const same = (list) => JSON.stringify(list.map(({ pool_id, name }) => [pool_id, name]));
    if (same(await fetchShownPools()) !== same(pools)) location.reload();
  } catch {
    // The feeds say what is wrong.
  }
}

function showMessage(words, { link = false } = {}) {
  setShown($("message"), true);
  setText($("message-text"), words);
  setShown($("message-link"), link);
  drawHeader();
}

function showLogin() {
  if (needsLogin()) return;
  setShown($("message"), false);
  setShown($("login"), true);
  // The cookie is gone, or was none.
  noteLogin(false);
  $("token").focus();
  drawHeader();
}

function loggedIn() {
  setShown($("login"), false);
  $("main").focus();
  if (page === null) openPools();
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
