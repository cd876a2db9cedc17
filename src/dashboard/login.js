// The viewer token: handed to the server, which answers with a cookie that no script can read.
// Keeps no token, only that there was a login.

import { Refusal } from "./metrics-client.js";
import { say } from "./text.js";

const TIMEOUT_MS = 10_000;
/** In the browser's storage while it has the cookie. */
const LOGGED_IN = "agent-metrics-logged-in";

/** Trades `token` for the cookie. Throws a `Refusal`, or what `fetch` throws without a server. */
export async function logIn(token) {
  await post("/login", JSON.stringify({ token }));
  noteLogin(true);
}

/** Gives the cookie back. Throws as `logIn` does. */
export async function logOut() {
  await post("/logout");
  noteLogin(false);
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body,
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Refusal(response.status, problem.detail ?? `HTTP ${response.status}`);
  }
}

/** Whether a login made this browser a viewer, as far as the page can tell. */
export function isLoggedIn() {
  try {
    return localStorage.getItem(LOGGED_IN) !== null;
  } catch {
    // Storage may be forbidden; then there is no button to log out.
    return false;
  }
}

/** Notes that there is a login, or that there is none any more. */
export function noteLogin(isOne) {
  try {
    if (isOne) localStorage.setItem(LOGGED_IN, "");
    else localStorage.removeItem(LOGGED_IN);
  } catch {
    // See `isLoggedIn`.
  }
}

/** What a person reads when `logIn` threw `error`. */
export function loginProblem(error) {
  if (!(error instanceof Refusal)) return say.login.unreachable;
  return error.status === 401 ? say.login.failed : say.login.other(say.cause(error.message));
}

/** Shows `words` beside the field of `section`, or that all is well again: null. */
export function showProblem(section, words) {
  const problem = section.querySelector(".problem");
  problem.textContent = words ?? "";
  problem.hidden = words === null;
  section.querySelector("input").setAttribute("aria-invalid", String(words !== null));
}

/** Makes the form in `section` log in without leaving the page, then calls `done`. */
export function attachLogin(section, done) {
  const form = section.querySelector("form");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    showProblem(section, null);
    try {
      await logIn(form.elements.token.value.trim());
      form.reset();
      done();
    } catch (error) {
      showProblem(section, loginProblem(error));
      form.elements.token.select();
    } finally {
      button.disabled = false;
    }
  });
}
