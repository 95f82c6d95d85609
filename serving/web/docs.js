/** The page /docs: opens the route that the address names, and sets up the forms. */

import { ServiceClient } from "./client.js";
import { setUpForm } from "./docs-request.js";
import { find } from "./dom.js";
import { withLines } from "./json.js";
import { showProblem, showUncaughtErrors, untilAnswered } from "./notices.js";

const client = new ServiceClient();

showUncaughtErrors();
if (find("openapi")) {
  setUp();
} else {
  showWithKey();
}

/** Get the same page with the key, which a browser does not send by itself. */
async function showWithKey() {
  try {
    const [html, description] = await untilAnswered(client, () =>
      Promise.all([
        client.text("docs", "text/html"),
        client.text("openapi.json", "application/json"),
      ]),
    );
    const page = new DOMParser().parseFromString(html, "text/html");
    document.body.replaceChildren(...page.body.childNodes);
    // A link sends no key, so this one leads to what the page has fetched.
    const link = find("openapi");
    link.href = URL.createObjectURL(new Blob([description], { type: "application/json" }));
    link.download = "openapi.json";
    setUp();
  } catch (error) {
    showProblem(`Cannot show the interface: ${error.message}`);
  }
}

function setUp() {
  for (const form of document.querySelectorAll("form.request")) setUpForm(form, client);
  for (const code of document.querySelectorAll(".json code")) {
    code.textContent = withLines(code.textContent);
  }
  open(location.hash);
  window.addEventListener("hashchange", () => open(location.hash));
  document.addEventListener("click", ({ target }) => {
    const link = target.closest('a[href^="#"]');
    const details = target.closest("summary")?.parentElement;
    // A link to the current address fires no `hashchange`.
    if (link) open(link.hash);
    else if (details?.id && !details.open) history.replaceState(null, "", `#${details.id}`);
  });
}

/** Open the element with this anchor, and all that contain it. */
function open(hash) {
  const target = find(hash.slice(1));
  for (let part = target; part; part = part.parentElement?.closest("details")) part.open = true;
  target?.scrollIntoView();
}
