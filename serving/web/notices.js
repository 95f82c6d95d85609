/** Notices about failed requests, and retries. */

import { UnavailableError, KeyError } from "./client.js";
import { find, setText } from "./dom.js";
import { pause } from "./timing.js";

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;

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
    try {
      const answer = await ask();
      if (!find("unavailable").hidden) {
        setText(find("unavailable"), "");
        announce("The service is available again.");
      }
      return answer;
    } catch (error) {
      if (error instanceof KeyError) {
        client.key = await enteredKey(
          client.hasKey ? "The service does not accept this key." : "This service needs an API key.",
        );
      } else if (error instanceof UnavailableError) {
        setText(find("unavailable"), `The service is unavailable (${error.message}). Retrying.`);
        await pause(Math.max(wait, 1000 * error.retryAfterSeconds));
        wait = Math.min(2 * wait, LONGEST_WAIT_MS);
      } else {
        throw error;
      }
    }
  }
}

function enteredKey(reason) {
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
