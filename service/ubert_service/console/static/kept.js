// What a reload of this tab is not to lose: identifiers and stars, but no key, and no text of a review.

export function keep(name, value) {
  try {
    sessionStorage.setItem(name, JSON.stringify(value));
  } catch {
    // full, or forbidden by the browser: a reload loses it
  }
}

export function kept(name, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}
