/** The form of a route on the page /docs: it sends its request, and shows the answer. */

import { SERVICE } from "./client.js";
import { fillList, setText } from "./dom.js";
import { withLines } from "./json.js";

const HEADERS = [
  "Content-Type",
  "X-Request-ID",
  "Retry-After",
  "Allow",
  "WWW-Authenticate",
  "Inference-Header-Content-Length",
];

export function setUpForm(form, client) {
  const { body, example } = form.elements;
  const update = () => showCommand(form);
  const choose = (text) => {
    body.value = withLines(text);
    body.rows = body.value.split("\n").length + 1;
    update();
  };
  if (body) choose(body.value);
  else update();
  example?.addEventListener("change", () => choose(example.value));
  form.addEventListener("input", update);
  let sending = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (sending) return;
    sending = true;
    await send(form, client);
    sending = false;
  });
  form.querySelector("button").disabled = false;
}

/** The request as the form has it: a path relative to the service, and the options of `fetch`. */
function requestOf(form) {
  let path = form.dataset.path.slice(1);
  const options = { method: form.dataset.method, headers: { Accept: "application/json" } };
  for (const { name, value, dataset } of form.querySelectorAll("[data-in]")) {
    if (dataset.in === "path") {
      path = path.replace(`{${name}}`, () => encodeURIComponent(value));
    } else if (value !== "") {
      options.headers[name] = value;
    }
  }
  if (form.elements.body) {
    options.headers["Content-Type"] = "application/json";
    options.body = form.elements.body.value;
  }
  return { path, options };
}

/** Update the curl command. */
function showCommand(form) {
  const { path, options } = requestOf(form);
  const parts = {
    address: new URL(path, SERVICE).href,
    headers: Array.from(form.querySelectorAll('[data-in="header"]'))
      .filter(({ value }) => value !== "")
      .map(({ name, value }) => ` \\\n  -H ${quoted(`${name}: ${value}`)}`)
      .join(""),
    body: quoted(options.body ?? "").slice(1, -1),
  };
  for (const part of form.closest(".parts").querySelectorAll("[data-part]")) {
    part.textContent = parts[part.dataset.part];
  }
}

/** A text as one word of a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

async function send(form, client) {
  const answer = form.closest(".parts").querySelector(".answer");
  const status = answer.querySelector("[role=status]");
  const { path, options } = requestOf(form);
  const started = performance.now();
  try {
    const response = await client.send(path, options);
    const text = await response.text();
    const milliseconds = Math.round(performance.now() - started);
    showAnswer(answer.querySelector("div"), response.headers, text);
    status.className = response.ok ? "" : "refused";
    // Set even if unchanged, so that screen readers announce it again.
    status.textContent = `${response.status} ${response.statusText} in ${milliseconds} ms`;
  } catch (error) {
    answer.querySelector("div").hidden = true;
    status.className = "refused";
    setText(status, `No answer: ${error.message}`);
  }
  status.scrollIntoView({ block: "nearest" });
}

function showAnswer(element, headers, text) {
  const received = HEADERS.filter((name) => headers.has(name));
  const facts = Object.fromEntries(received.map((name) => [name, headers.get(name)]));
  fillList(element.querySelector("dl"), facts);
  element.querySelector("code").textContent = withLines(text);
  element.hidden = false;
}
