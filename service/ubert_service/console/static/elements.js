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

const FELT_MS = 1000;
let longWait;

// One line for screen readers; a sighted person sees the change itself.
export function announce(text) {
  clearTimeout(longWait);
  byId("announcement").textContent = text;
}

// Whether a place waits for the service. Once that takes long, and nothing else has been said since, it is said.
export function setBusy(place, busy) {
  clearTimeout(longWait);
  if (busy) longWait = setTimeout(() => announce("Waiting for the service…"), FELT_MS);
  if (busy) place.setAttribute("aria-busy", "true");
  else place.removeAttribute("aria-busy");
}

export function showProblem(place, error) {
  place.replaceChildren();
  if (error === null) return;
  place.append(element("p", {}, element("strong", {}, `${error.title ?? error.name}. `), sentence(error.detail ?? error.message)));
  for (const { check, found, remedy } of error.reasons ?? []) place.append(element("p", {}, `${check}: ${found}. `, element("span", { class: "note" }, remedy)));
  if (error.retryAfter) place.append(element("p", {}, `Try again in ${error.retryAfter} s.`));
  if (error.requestId) place.append(element("p", { class: "note" }, `Request ${error.requestId}`));
  // Or whoever pressed a button at the lower edge of the window would see nothing happen.
  if (document.activeElement.form === place.previousElementSibling) place.scrollIntoView({ block: "nearest" });
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// A table wider than its place can be scrolled by key; one that is not would be but one more stop on the way.
function markScrolled(place) {
  const given = place.scrollWidth > place.clientWidth
    ? { tabindex: "0", role: "region", "aria-label": place.querySelector("caption").textContent }
    : {};
  for (const name of ["tabindex", "role", "aria-label"]) {
    if (name in given) place.setAttribute(name, given[name]);
    else place.removeAttribute(name);
  }
}

const whenResized = new ResizeObserver((entries) => entries.forEach(({ target }) => markScrolled(target)));

export function table({ caption, head, rows, className }) {
  const place = element(
    "div",
    { class: "scrolled" },
    element(
      "table",
      { class: className },
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, ...head.map((cell) => element("th", { scope: "col", class: cell.class }, cell.text)))),
      element("tbody", {}, ...rows),
    ),
  );
  whenResized.observe(place);
  return place;
}

// What is shown anew stays scrolled where it was, and keeps the focus: it was somebody's place.
export function renew(place, ...content) {
  const tables = () => [...place.querySelectorAll(".scrolled")];
  const before = tables().map((one) => ({ left: one.scrollLeft, focused: one === document.activeElement }));
  place.replaceChildren(...content);
  tables().forEach((one, index) => {
    markScrolled(one);
    one.scrollLeft = before[index]?.left ?? 0;
    if (before[index]?.focused) one.focus({ preventScroll: true });
  });
}
