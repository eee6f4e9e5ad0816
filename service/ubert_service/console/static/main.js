// Which view is shown follows from the address, so that a pair or a ranking can be linked to and gone back to.

import { read } from "./address.js";
import { byId, element } from "./elements.js";
import { PairView } from "./pair.js";
import { RankingView } from "./ranking.js";
import { useScale } from "./rating_scale.js";
import { about, readiness, useKey, whenKeyNeeded } from "./service.js";
import { StatusView } from "./status.js";

const views = { pair: new PairView(), ranking: new RankingView(), status: new StatusView() };
const HEALTH_PAUSE_MS = 5000;
let shown = null;

function show() {
  const { view: asked, query } = read(location.hash);
  const name = asked in views ? asked : "pair";
  for (const id of Object.keys(views)) byId(id).hidden = id !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = byId(`${name}-title`);
  document.title = `${title.textContent} – U-BERT console`;
  if (shown !== null && shown !== name) {
    views[shown].leave();
    title.focus(); // or a screen reader would stay silent where the old view was
  }
  shown = name;
  views[name].enter(query);
}

async function showHealth() {
  try {
    const { bundle } = await readiness();
    byId("health").replaceChildren(element("span", { class: "sign good", "aria-hidden": "true" }, "●"), ` Ready, bundle ${bundle}`);
  } catch (problem) {
    byId("health").replaceChildren(element("span", { class: "sign bad", "aria-hidden": "true" }, "▲"), ` ${problem.title}`);
    setTimeout(showHealth, HEALTH_PAUSE_MS); // a service that warms its memory becomes ready by itself
  }
}

async function start() {
  showHealth();
  try {
    useScale((await about()).scale);
  } catch {
    // the default scale stands in; the view below asks the same service, and says what is wrong
  }
  show();
}

whenKeyNeeded(() => { byId("key").hidden = false; });
byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key-value").value.trim());
  byId("key-value").value = "";
  byId("key").hidden = true;
  byId("main").focus();
  start();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names a view, and keeps naming it
  byId("main").focus();
});
window.addEventListener("hashchange", show);
start();
