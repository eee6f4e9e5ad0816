// Which view is shown follows from the address, so that a pair or a ranking can be linked to and gone back to.

import { address, read } from "./address.js";
import { announce, byId } from "./elements.js";
import { named } from "./format.js";
import { PairView } from "./pair.js";
import { RankingView } from "./ranking.js";
import { ReadinessLine } from "./readiness.js";
import { about, useKey, whenKeyNeeded } from "./service.js";
import { useScale } from "./star_scale.js";
import { StatusView } from "./status.js";

const views = { pair: new PairView(), ranking: new RankingView(), status: new StatusView() };
let shown = null;
let followed = null; // the link that led to another view: going back leads to it again
let shownAddress = null;

function show() {
  shownAddress = location.hash;
  const { view: asked, query } = read(shownAddress);
  const name = Object.hasOwn(views, asked) ? asked : "pair";
  const pressed = document.activeElement.closest("a");
  for (const id of Object.keys(views)) byId(id).hidden = id !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) {
      link.setAttribute("aria-current", "page");
      link.href = address(name, query); // from another view it leads back to what was shown here
    } else link.removeAttribute("aria-current");
  }
  const title = byId(`${name}-title`);
  const subject = [query.user, query.item].filter(Boolean).map(named).join(", ");
  if (name === "pair" && query.user) offerRankingFor(query.user);
  document.title = `${subject || title.textContent} – U-BERT console`;
  if (shown !== null && shown !== name) {
    views[shown].leave();
    const back = !pressed && followed && byId(name).contains(followed);
    (back ? followed : title).focus(); // or a screen reader would stay silent where the old view was
    followed = pressed ?? followed;
  }
  shown = name;
  views[name].enter(query);
}

// What was ranked last leads to the same for this user.
function offerRankingFor(user) {
  const link = document.querySelector("[data-view=ranking]");
  link.href = address("ranking", { ...read(link.hash).query, user });
}

async function learnScale() {
  try {
    useScale((await about()).scale);
  } catch {
    // the default scale stands in; the view below asks the same service, and says what is wrong
  }
}

async function start() {
  await learnScale();
  show();
}

// Another bundle may have another scale; and no view is to say otherwise than the line above it.
function onReadinessChange() {
  learnScale();
  views[shown]?.refresh?.();
}

whenKeyNeeded(({ title, detail }) => {
  byId("key-problem").textContent = `${title}: ${detail}`;
  if (byId("key").hidden) announce(`${title}: ${detail}. A form above the content takes an API key.`);
  byId("key").hidden = false;
});
byId("key").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey(byId("key-value").value.trim());
  byId("key-value").value = "";
  byId("key").hidden = true;
  byId("main").focus();
  await start();
  if (!byId("key").hidden) byId("key-value").focus(); // it was refused
});
byId("key-dismiss").addEventListener("click", () => {
  byId("key-value").value = "";
  byId("key").hidden = true;
  byId("main").focus();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names a view, and keeps naming it
  byId("main").focus();
});
window.addEventListener("hashchange", () => {
  // Before anything is shown, start() is about to show what the address then says; and where it was quicker than this
  // event, that is shown already.
  if (shown !== null && location.hash !== shownAddress) show();
});
new ReadinessLine(byId("health"), onReadinessChange).follow();
start();
