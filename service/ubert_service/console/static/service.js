// Asks the service that this page came from; an answer that is no success becomes a Problem (RFC 9457).

export class Problem extends Error {
  constructor({ type, title, status, detail, request_id: requestId, reasons, retryAfter }) {
    super(detail);
    Object.assign(this, { name: "Problem", type, title, status, detail, requestId, retryAfter, reasons: reasons ?? [] });
  }
}

const STRANGE = "This answer did not come from the service but from something between it and this page.";

// In place of how a program sends a key, for whoever has a form for it.
const KEYLESS = "none has been entered";

// Twice what the service gives a request by default: its own answer tells more than that the time is over.
const PATIENCE_MS = 60_000;

// What is refused for load (429) is asked again, after the seconds that the service names and up to as many more: else
// whoever looks in a busy hour would press the button until they are lucky, for the rating and again for its evidence.
const ATTEMPTS = 4;
const LONGEST_PAUSE_S = 5;

// In this module's memory and nowhere else: neither storage nor an address ever holds it.
let key = null;
let onKeyNeeded = () => {};

const READ_VERSION = "X-Read-Version";
const READ_VERSION_LOST = "urn:u-bert:problem:read-version-lost";
const REPLICAS_LAG_MS = 60_000; // the most that --resident-lag allows: by then every replica has read the write by itself
// The last write from this page: a question that names it is answered with it, whichever replica answers.
let lastWrite = null;

export const useKey = (given) => { key = given; };
export const whenKeyNeeded = (listener) => { onKeyNeeded = listener; };

async function answer(...request) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await answerOnce(...request);
    } catch (error) {
      if (error.status !== 429 || attempt === ATTEMPTS || !(error.retryAfter <= LONGEST_PAUSE_S)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfter * (1 + Math.random())));
    }
  }
}

async function answerOnce(method, path, { query = {}, body, signal, readVersion } = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== null));
  const headers = {};
  const sent = key;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (sent) headers.Authorization = `Bearer ${sent}`;
  if (readVersion) headers[READ_VERSION] = readVersion;
  const limit = AbortSignal.timeout(PATIENCE_MS);
  const until = signal ? AbortSignal.any([signal, limit]) : limit;
  const address = asked.size ? `${path}?${asked}` : path;
  let response, text;
  try {
    response = await fetch(address, { method, headers, signal: until, body: body === undefined ? undefined : JSON.stringify(body) });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.name === "TimeoutError") throw new Problem({ title: "The service does not answer", status: 0, detail: "Try again; if that does not help, something between the service and this page may be holding the answer back." });
    throw new Problem({ title: "The service cannot be reached", status: 0, detail: "Is it still running?" });
  }
  if (response.ok) return { text, headers: response.headers };
  const problem = new Problem({
    title: response.statusText || `Status ${response.status}`,
    status: response.status,
    detail: STRANGE,
    ...parsed(text),
    ...(response.status === 401 && !sent && { detail: KEYLESS }),
    retryAfter: Number(response.headers.get("Retry-After")) || undefined,
  });
  // None, or one that does not allow this; what a former key was refused says nothing of one given since.
  if ((problem.status === 401 || problem.status === 403) && sent === key) onKeyNeeded(problem);
  throw problem;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function fromJson({ text }) {
  const read = parsed(text);
  if (read === null) throw new Problem({ title: "The answer cannot be read", detail: STRANGE });
  return read;
}

const json = async (...request) => fromJson(await answer(...request));

// With the seconds for which the store has been away, where the service answers from what it holds; else 0.
async function question(path, body, signal, readVersion) {
  const answered = await answer("POST", path, { body, signal, readVersion });
  return { ...fromJson(answered), stale_s: Number(answered.headers.get("X-Stale-Seconds")) };
}

async function write(...request) {
  const answered = await answer(...request);
  const stored = answered.text && fromJson(answered); // what is deleted is answered with nothing
  const readVersion = answered.headers.get(READ_VERSION) ?? stored.read_version;
  lastWrite = readVersion ? { readVersion, at: Date.now() } : null;
  return stored;
}

async function rated(path, body, signal) {
  const write = lastWrite;
  if (write === null || Date.now() - write.at > REPLICAS_LAG_MS) return question(path, body, signal);
  try {
    return await question(path, body, signal, write.readVersion);
  } catch (error) {
    if (error.type !== READ_VERSION_LOST) throw error;
    if (lastWrite === write) lastWrite = null;
    return question(path, body, signal);
  }
}

export const predict = async (user, item, texts, signal) => {
  const { predictions: [prediction], stale_s } = await rated("predict", { pairs: [{ user, item }], user_texts: texts }, signal);
  return { ...prediction, stale_s };
};
export const explain = (user, item, texts, signal) => rated("explain", { user, item, user_texts: texts }, signal);
export const rank = (body, signal) => rated("rank", body, signal);
export const candidateSets = async () => (await json("GET", "candidate-sets")).names;
export const writeReview = (body) => write("POST", "reviews", { body });
export const removeReview = (name, user, item) => write("DELETE", `reviews/${encodeURIComponent(name)}`, { query: { user, item } });
export const findUsers = async (prefix, limit, signal) => (await json("GET", "users", { query: { prefix, limit }, signal })).found;
export const findItems = async (prefix, limit, signal) => (await itemsFrom({ prefix, limit }, signal)).found;
export const itemsFrom = (query, signal) => json("GET", "items", { query, signal });
export const about = (signal) => json("GET", "about", { signal });
export const version = (signal) => json("GET", "version", { signal });
export const readiness = (signal) => json("GET", "readyz", { signal });
export const metrics = async (signal) => (await answer("GET", "metrics", { signal })).text;
