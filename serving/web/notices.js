/** Notices about failed requests, and retries. */

import { KeyError, LostError, UnavailableError } from "./client.js";
import { find, setText } from "./dom.js";
import { NotServedError, servedModel } from "./unserved.js";
import { pause } from "./timing.js";

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;
/** The service's error while no version of a model is served. */
const NOT_SERVED = /^503 no version of (\S+) is served/;
const START = " If it has stopped, `python -m serving run` or `make serve` starts it.";
const KEY_NEEDED = "This service needs an API key. Ask whoever runs it for one.";
const KEY_WRONG =
  "The service does not accept this key. Look for a typing error, or ask for another key.";

/** Tell screen readers what happened. */
export function announce(text) {
  find("announcement").textContent = text;
}

/** Show an error that a retry does not fix; "" hides it. */
export function showProblem(text) {
  setText(find("problem"), text);
}

/** Retry with back-off until the service answers; ask the user for a key if it wants one. */
export async function untilAnswered(client, ask) {
  let wait = FIRST_WAIT_MS;
  for (;;) {
    const { key } = client;
    try {
      const answer = await ask();
      if (!find("unavailable").hidden) {
        showUnavailable("");
        announce("The service is available again.");
      }
      return answer;
    } catch (error) {
      if (error instanceof KeyError) {
        // If a key was entered after this request was sent, retry with that key first.
        if (client.key === key) await enterKey(client);
      } else if (error instanceof UnavailableError) {
        showUnavailable(await reasonFor(client, error));
        await pause(Math.max(wait, 1000 * error.retryAfterSeconds));
        wait = Math.min(2 * wait, LONGEST_WAIT_MS);
      } else {
        throw error;
      }
    }
  }
}

/** Show text, with parts between backticks as code; "" hides the notice. */
function showUnavailable(text) {
  const notice = find("unavailable");
  const parts = text.split("`");
  notice.hidden = text === "";
  // Screen readers may repeat an alert that is set again.
  if (notice.textContent === parts.join("")) return;
  notice.replaceChildren(
    ...parts.map((part, i) => {
      if (i % 2 === 0) return part;
      const code = document.createElement("code");
      code.textContent = part;
      return code;
    }),
  );
}

/** The reason, what to do about it, and that the page continues by itself. */
async function reasonFor(client, error) {
  const reason = error instanceof NotServedError ? error.message : await whyNot(client, error);
  if (reason !== null) return `${reason} This page then continues by itself.`;
  const start = error instanceof LostError ? START : "";
  return `The service is unavailable (${error.message}).${start} Retrying.`;
}

/** Why nothing is served, if that is what the error says; else null. */
async function whyNot(client, { message }) {
  const name = message.match(NOT_SERVED)?.[1];
  if (name === undefined) return null;
  try {
    await servedModel(client, name);
  } catch (error) {
    if (error instanceof NotServedError) return error.message;
  }
  return null;
}

let entry = null;

/** Ask the user for a key; all requests that need one wait for the same entry. */
function enterKey(client) {
  entry ??= askForKey(client.key ? KEY_WRONG : KEY_NEEDED).then((key) => {
    client.key = key;
    entry = null;
  });
  return entry;
}

function askForKey(reason) {
  const form = find("key-form");
  const input = find("key");
  find("key-reason").textContent = reason;
  form.hidden = false;
  input.focus();
  return new Promise((resolve) => {
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        form.hidden = true;
        resolve(input.value);
        input.value = "";
      },
      { once: true },
    );
  });
}

/** Show uncaught errors. */
export function showUncaughtErrors() {
  window.addEventListener("error", (event) => showProblem(`The page failed: ${event.message}`));
  window.addEventListener("unhandledrejection", (event) => {
    showProblem(`The page failed: ${event.reason?.message ?? event.reason}`);
  });
}
