/** Requests to the service that this page comes from. */

export const SERVICE = new URL("../", import.meta.url);
const TIMEOUT_MS = 10_000;
/** Includes the path: other services of this origin have other keys. */
const STORED_KEY = `api-key ${SERVICE.pathname}`;

/** Where a model is, relative to the service. */
export const modelPath = (name) => `models/${encodeURIComponent(name)}`;

/** No response, 429 or 5xx: worth a retry. */
export class UnavailableError extends Error {
  constructor(message, retryAfterSeconds = 0) {
    super(message);
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** No connection: the service may have stopped. */
export class LostError extends UnavailableError {}

/** 401: the service requires an API key, or rejected the one sent. */
export class KeyError extends Error {}

/** An error that a retry will not change. */
export class RefusedError extends Error {}

/** Sends requests; all pages in this tab share the API key, until it is closed. */
export class ServiceClient {
  #key = storedKey();

  /** Empty if the user has entered none. */
  get key() {
    return this.#key;
  }

  set key(key) {
    this.#key = key;
    storeKey(key);
  }

  /** Get actions for rows of observations; `path` selects the model (if omitted, the default). */
  async act(rows, deterministic, { path = "act", seed } = {}) {
    const decision = await this.post(path, { observations: rows, deterministic, seed });
    const actions = decision.actions;
    if (!Array.isArray(actions) || actions.length !== rows.length) {
      throw new RefusedError(`The response does not have one action per row (${rows.length}).`);
    }
    return decision;
  }

  /** Post JSON and get JSON. */
  post(path, body) {
    return this.json(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  /** Get text. */
  async text(path, accept, options = {}) {
    const response = await this.#request(path, accept, options);
    return inTime(response.text());
  }

  /** Get JSON. */
  async json(path, options = {}) {
    const text = await this.text(path, "application/json", options);
    try {
      return JSON.parse(text);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new RefusedError(`The response to ${path} is not JSON: ${error.message}`);
    }
  }

  /** Get a picture as an object URL; null on 404. */
  async picture(path) {
    try {
      const response = await this.#request(path, "image/*");
      return URL.createObjectURL(await inTime(response.blob()));
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  /** Send a request with the key, if there is one; a response of any status is a result. */
  send(path, options = {}) {
    const headers = { ...options.headers };
    if (this.#key) headers.Authorization = `Bearer ${this.#key}`;
    return inTime(
      fetch(new URL(path, SERVICE), {
        ...options,
        headers,
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      }),
    );
  }

  async #request(path, accept, options = {}) {
    const headers = { Accept: accept, ...options.headers };
    const response = await this.send(path, { ...options, headers });
    if (!response.ok) throw await problem(response);
    return response;
  }
}

// If a browser forbids storage, merely accessing it throws: the key is then kept in memory only.
function storedKey() {
  try {
    return sessionStorage.getItem(STORED_KEY) ?? "";
  } catch {
    return "";
  }
}

function storeKey(key) {
  try {
    sessionStorage.setItem(STORED_KEY, key);
  } catch {
    // The next page asks again.
  }
}

/** Turns a lost connection or a time-out into an UnavailableError. */
async function inTime(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "TimeoutError") {
      throw new UnavailableError(`no response within ${TIMEOUT_MS / 1000} seconds`);
    }
    throw new LostError("it cannot be reached");
  }
}

async function problem(response) {
  const { status } = response;
  let detail = response.statusText;
  try {
    const body = await response.json();
    detail = body.detail ?? body.error ?? detail; // `error` on routes below /v1 and /v2
  } catch {
    // Not the service's JSON, such as a proxy's error page: use its status only.
  }
  const text = `${status} ${detail}`;
  if (status === 401) return new KeyError(text);
  if (status === 429 || status >= 500) {
    return new UnavailableError(text, Number(response.headers.get("Retry-After")) || 0);
  }
  return Object.assign(new RefusedError(text), { status });
}
