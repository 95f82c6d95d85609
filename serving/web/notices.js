/** What the page says when the service does not simply answer; and asking until it does. */

import { AwayError, KeyError } from "./client.js";
import { find, tell } from "./dom.js";
import { pause } from "./timing.js";

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;

/** For a screen reader: what happened, at most as often as one can listen to. */
export function announce(text) {
  find("announcement").textContent = text;
}

/** An error that asking again does not mend; "" takes it back. */
export function showProblem(text) {
  tell(find("problem"), text);
}

/** Ask until there is an answer: wait while the service is away, get the key that it wants. */
export async function untilAnswered(client, ask) {
  let wait = FIRST_WAIT_MS;
  for (;;) {
    try {
      const answer = await ask();
      if (!find("away").hidden) {
        tell(find("away"), "");
        announce("The service answers again.");
      }
      return answer;
    } catch (error) {
      if (error instanceof KeyError) {
        client.key = await enteredKey(error.message);
      } else if (error instanceof AwayError) {
        tell(find("away"), `The service does not answer (${error.message}). Trying again.`);
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

/** Show every error that nobody caught. */
export function showUncaughtErrors() {
  window.addEventListener("error", (event) => showProblem(`The page failed: ${event.message}`));
  window.addEventListener("unhandledrejection", (event) => {
    showProblem(`The page failed: ${event.reason?.message ?? event.reason}`);
  });
}
