// Asks the service that this page came from; an answer that is no success becomes a Problem (RFC 9457).

export class Problem extends Error {
  constructor({ type, title, status, detail, request_id: requestId, reasons }) {
    super(detail);
    Object.assign(this, { name: "Problem", type, title, status, detail, requestId, reasons: reasons ?? [] });
  }
}

// In this module's memory and nowhere else: neither storage nor an address ever holds it.
let key = null;
let onKeyNeeded = () => {};

export const useKey = (given) => { key = given; };
export const whenKeyNeeded = (listener) => { onKeyNeeded = listener; };

async function answer(method, path, { query = {}, body, signal } = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== null));
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  const address = asked.size ? `${path}?${asked}` : path;
  let response;
  try {
    response = await fetch(address, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The service cannot be reached", status: 0, detail: "Is it still running?" });
  }
  if (response.ok) return response;
  const text = await response.text();
  const problem = new Problem({ title: response.statusText, status: response.status, detail: text, ...parsed(text) });
  if (problem.status === 401) onKeyNeeded();
  throw problem;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

const json = async (...request) => (await answer(...request)).json();

// Percent signs for every byte: an identifier may be "..", which else would be a step up.
const escaped = (identifier) =>
  [...new TextEncoder().encode(identifier)].map((byte) => `%${byte.toString(16).padStart(2, "0").toUpperCase()}`).join("");

export const predict = async (user, item, texts, signal) => {
  const { predictions } = await json("POST", "predict", { body: { pairs: [{ user, item }], user_texts: texts }, signal });
  return predictions[0];
};
export const explain = (user, item, texts, signal) => json("POST", "explain", { body: { user, item, user_texts: texts }, signal });
export const rank = (body, signal) => json("POST", "rank", { body, signal });
export const candidateSets = async () => (await json("GET", "candidate-sets")).names;
export const writeReview = (body) => json("POST", "reviews", { body });
export const removeReview = (name, user, item) => answer("DELETE", `reviews/${escaped(name)}`, { query: { user, item } });
export const findUsers = async (prefix, limit, signal) => (await json("GET", "users", { query: { prefix, limit }, signal })).found;
export const findItems = async (prefix, limit, signal) => (await json("GET", "items", { query: { prefix, limit }, signal })).found;
export const about = () => json("GET", "about");
export const version = () => json("GET", "version");
export const readiness = () => json("GET", "readyz");
export const metrics = async () => (await answer("GET", "metrics")).text();
