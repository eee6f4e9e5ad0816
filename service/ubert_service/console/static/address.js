// The part of the address after "#": "#/pair?user=…&item=…".

export function read(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  return { view: path, query: Object.fromEntries(new URLSearchParams(query)) };
}

export const address = (view, query = {}) => {
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  return given.size ? `#/${view}?${given}` : `#/${view}`;
};
