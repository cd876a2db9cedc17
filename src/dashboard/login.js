// The viewer token: handed to the server, which answers with a cookie that no script can read.
// Keeps no token.

import { Refusal } from "./metrics-client.js";
import { say } from "./text.js";

const TIMEOUT_MS = 10_000;

/** Trades `token` for the cookie. Throws a `Refusal`, or what `fetch` throws without a server. */
export async function logIn(token) {
  const response = await fetch("/login", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify({ token }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Refusal(response.status, problem.detail ?? `HTTP ${response.status}`);
  }
}

/** What a person reads when `logIn` threw `error`. */
export function loginProblem(error) {
  if (!(error instanceof Refusal)) return say.login.unreachable;
  return error.status === 401 ? say.login.failed : say.login.other(error.message);
}

/** Makes the form in `section` log in without leaving the page, then calls `done`. */
export function attachLogin(section, done) {
  const form = section.querySelector("form");
  const problem = section.querySelector(".problem");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    problem.textContent = "";
    try {
      await logIn(form.elements.token.value.trim());
      form.reset();
      done();
    } catch (error) {
      problem.textContent = loginProblem(error);
      form.elements.token.select();
    } finally {
      button.disabled = false;
    }
  });
}
