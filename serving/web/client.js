/** Requests to the service that this page comes from. */

const SERVICE = new URL("../", import.meta.url);
const TIMEOUT_MS = 10_000;

/** No answer, or one that says "later": worth asking again. */
export class AwayError extends Error {
  constructor(message, retryAfterSeconds = 0) {
    super(message);
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** The service wants an API key, or another one. */
export class KeyError extends Error {}

/** An answer that asking again will not change. */
export class RefusedError extends Error {}

/** Asks the service; an API key lives in this object, and so in the page's memory alone. */
export class ServiceClient {
  #key = "";

  set key(key) {
    this.#key = key;
  }

  /** Decide about rows; `path` is that of the service's default model, or of another. */
  async act(rows, deterministic, path = "act") {
    const decision = await this.json(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ observations: rows, deterministic }),
    });
    const actions = decision.actions;
    if (!Array.isArray(actions) || actions.length !== rows.length) {
      throw new RefusedError(`The answer has no action for each of ${rows.length} rows.`);
    }
    return decision;
  }

  /** The JSON of an answer. */
  async json(path, options = {}) {
    const response = await this.#request(path, "application/json", options);
    try {
      return JSON.parse(await inTime(response.text()));
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new RefusedError(`The answer to ${path} is not JSON: ${error.message}`);
    }
  }

  /** A picture as the address of an object in memory; null where there is none. */
  async picture(path) {
    try {
      const response = await this.#request(path, "image/*");
      return URL.createObjectURL(await inTime(response.blob()));
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  async #request(path, accept, options = {}) {
    const headers = { Accept: accept, ...options.headers };
    if (this.#key) headers.Authorization = `Bearer ${this.#key}`;
    const response = await inTime(
      fetch(new URL(path, SERVICE), {
        ...options,
        headers,
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      }),
    );
    if (!response.ok) throw await problem(response);
    return response;
  }
}

/** What a lost connection or a time-out rejects with, as one error. */
async function inTime(promise) {
  try {
    return await promise;
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new AwayError(
      late ? `no answer within ${TIMEOUT_MS / 1000} seconds` : "it cannot be reached",
    );
  }
}

async function problem(response) {
  const { status } = response;
  let detail = response.statusText;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // Something between the page and the service answered: its status has to do.
  }
  const text = `${status} ${detail}`;
  if (status === 401) return new KeyError(text);
  if (status === 429 || status >= 500) {
    return new AwayError(text, Number(response.headers.get("Retry-After")) || 0);
  }
  return Object.assign(new RefusedError(text), { status });
}
