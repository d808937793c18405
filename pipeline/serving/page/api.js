// Requests to the server: JSON, streamed answers, and failures that the page can say in words.

let key = ""; // of the API, for this visit only: it is kept nowhere

/** Sets the API key of later requests. */
export function useKey(value) {
  key = value;
}

/** A request that was not answered as it asked. `key` and `values` are its words. */
export class Failure extends Error {
  constructor(status, key, values = {}, param = null) {
    super(key);
    Object.assign(this, { status, key, values, param });
  }
}

/** The JSON answer to a GET, or with a body to a POST. Throws Failure. */
export async function ask(path, body, signal) {
  const response = await sent(path, body, signal);
  try {
    return await response.json();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure(0, "fault.gone");
  }
}

/** The id of a streamed request, and its events as objects until [DONE]. Throws Failure; a stream that ends early too. */
export async function stream(path, body, signal) {
  const response = await sent(path, body, signal);
  return { id: response.headers.get("x-request-id"), events: events(response.body.getReader()) };
}

async function sent(path, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure(0, "fault.unreachable");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // an answer that is none of the server's own, as of a proxy: its status says enough
  }
  return worded(response.status, error, Number(response.headers.get("retry-after")));
}

/** A failure in words, by HTTP status. */
function worded(status, error, seconds) {
  const detail = error.message ?? "";
  const known = { 401: "key", 403: "forbidden", 404: "missing", 413: "long", 504: "slow", 507: "kept" };
  if (status === 429) return new Failure(status, "fault.busy", { seconds: seconds || 1 });
  if (status === 503) return new Failure(status, "fault.ending", { detail });
  if (known[status]) return new Failure(status, `fault.${known[status]}`, { detail }, error.param);
  return new Failure(status, status >= 500 ? "fault.server" : "fault.refused", { detail }, error.param);
}

async function* events(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : new Failure(0, "fault.gone");
    }
    rest += decoder.decode(part.value ?? new Uint8Array(), { stream: !part.done });
    const whole = rest.split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const data = event.split("\n").filter(line => line.startsWith("data:")).map(line => line.slice(5).trim()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;
      const value = JSON.parse(data);
      if (value.error) throw worded(statusOf(value.error), value.error, 0);
      yield value;
    }
    if (part.done) throw new Failure(0, "fault.gone");
  }
}

/** The HTTP status that an error inside a stream would have had. */
function statusOf(error) {
  return { timeout: 504, not_kept: 507, rate_limit_exceeded: 429 }[error.code] ?? 500;
}
