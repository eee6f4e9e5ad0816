// Builds elements. Text always goes in as text, so that nothing a review says can become markup.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (key === "vars") for (const [variable, given] of Object.entries(value)) made.style.setProperty(variable, given);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== undefined && child !== null));
  return made;
}

export const byId = (id) => document.getElementById(id);

// One line for screen readers; a sighted person sees the change itself.
export function announce(text) {
  byId("announcement").textContent = text;
}

export function showProblem(place, error) {
  place.replaceChildren();
  if (error === null) return;
  place.append(element("p", {}, element("strong", {}, `${error.title ?? error.name}. `), error.detail ?? error.message));
  if (error.requestId) place.append(element("p", { class: "note" }, `Request ${error.requestId}`));
}

export function table({ caption, head, rows, className }) {
  return element(
    "div",
    { class: "scrolled", tabindex: 0, role: "region", "aria-label": caption },
    element(
      "table",
      { class: className },
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, ...head.map((cell) => element("th", { scope: "col", class: cell.class }, cell.text)))),
      element("tbody", {}, ...rows),
    ),
  );
}
