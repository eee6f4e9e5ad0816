// Numbers, dates and counts as people read them.

const MINUS = "\u2212";
const dates = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const times = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const integers = new Intl.NumberFormat("en-GB");

const RIGHT_TO_LEFT = /[\u0590-\u08ff\u200f\u202a-\u202e\u2066-\u2068\ufb1d-\ufdff\ufe70-\ufefc]/;

// An identifier within a sentence: one written from right to left, or that says it is, must not turn what stands around it.
export const named = (identifier) => (RIGHT_TO_LEFT.test(identifier) ? `\u2068${identifier}\u2069` : identifier);

export const stars = (value) => value.toFixed(2);

export function signed(value, digits = 2) {
  const shown = Math.abs(value).toFixed(digits);
  if (Number(shown) === 0) return shown;
  return (value < 0 ? MINUS : "+") + shown;
}

export const count = (number) => integers.format(number);
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;
export const day = (unixSeconds) => (unixSeconds ? dates.format(unixSeconds * 1000) : "undated");
export const timeOfDay = (date) => times.format(date);
export const percent = (share, digits = 0) => `${(share * 100).toFixed(digits)}%`;

export function duration(seconds) {
  if (seconds === Infinity) return "longer";
  if (seconds < 0.001) return `${Number((seconds * 1e6).toPrecision(2))} µs`;
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(2))} ms`;
  return `${Number(seconds.toPrecision(2))} s`;
}

export const megabytes = (bytes) => `${Number((bytes / 2 ** 20).toPrecision(3))} MiB`;
