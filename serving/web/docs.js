/** The page /docs where the service has keys: gets the same address again, with the key. */

import { ServiceClient } from "./client.js";
import { showProblem, showUncaughtErrors, untilAnswered } from "./notices.js";

const client = new ServiceClient();

showUncaughtErrors();
try {
  const [html, description] = await untilAnswered(client, () =>
    Promise.all([
      client.text("docs", "text/html"),
      client.text("openapi.json", "application/json"),
    ]),
  );
  const page = new DOMParser().parseFromString(html, "text/html");
  // A link sends no key: this one leads to what the page has fetched.
  const link = page.querySelector('a[href="openapi.json"]');
  link.href = URL.createObjectURL(new Blob([description], { type: "application/json" }));
  link.download = "openapi.json";
  document.title = page.title;
  document.body.replaceChildren(...page.body.childNodes);
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
} catch (error) {
  showProblem(`Cannot show the interface: ${error.message}`);
}
