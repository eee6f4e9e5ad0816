// One pair: its rating at once, then what the rating was made from.

import { address } from "./address.js";
import { Combobox } from "./combobox.js";
import { contributionTable } from "./contributions.js";
import { announce, byId, element, setBusy, showProblem } from "./elements.js";
import { evidenceNote, evidenceSides } from "./evidence.js";
import { named, signed, stars, timeOfDay } from "./format.js";
import { heatMap } from "./heat_map.js";
import { OwnTexts } from "./own_texts.js";
import { grounds, intervalText, ratingScale } from "./rating_scale.js";
import * as service from "./service.js";
import { Writing } from "./writing.js";

const PICKED_FROM = 100;

export class PairView {
  constructor() {
    this.user = new Combobox(byId("pair-user"), { label: "User", find: service.findUsers });
    this.item = new Combobox(byId("pair-item"), { label: "Item", find: service.findItems });
    this.texts = new OwnTexts();
    this.writing = new Writing({ rate: () => this.#rate(), rateAgain: (before) => this.#ask(before) });
    byId("pair-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#go(this.user.value, this.item.value);
    });
    byId("pair-any").addEventListener("click", () => this.#goAnywhere());
  }

  enter({ user = "", item = "" }) {
    this.user.value = user;
    this.item.value = item;
    if (user && item) this.#load(user, item);
    else this.#clear();
  }

  leave() {
    this.picking?.abort();
    this.asking?.abort();
  }

  // The rating of one pair must not stand below the names of another.
  #clear() {
    this.leave();
    byId("pair-answer").hidden = true;
    showProblem(byId("pair-problem"), null);
    (this.user.value ? this.item : this.user).input.focus();
  }

  #go(user, item) {
    if (!user || !item) {
      showProblem(byId("pair-problem"), { title: "Something is missing", detail: "Choose a user and an item." });
      (user ? this.item : this.user).input.focus();
      return;
    }
    const next = address("pair", { user, item });
    if (location.hash === next) this.#load(user, item);
    else location.hash = next;
  }

  async #goAnywhere() {
    this.picking?.abort();
    const { signal } = (this.picking = new AbortController());
    showProblem(byId("pair-problem"), null);
    try {
      const [users, items] = await Promise.all([service.findUsers("", PICKED_FROM, signal), service.findItems("", PICKED_FROM, signal)]);
      const [user, item] = [users, items].map(anyReviewed);
      if (!user || !item) throw new service.Problem({ title: "There is no such pair", detail: `None of the first ${PICKED_FROM} users and items has two reviews.` });
      this.#go(user.id, item.id);
    } catch (error) {
      if (error.name !== "AbortError") showProblem(byId("pair-problem"), error);
    }
  }

  // The answer to the same pair stays until the new one has come, and if none comes; so does a review being written.
  #load(user, item) {
    this.leave();
    this.texts.keepFor(user);
    if (this.pair?.user !== user || this.pair.item !== item) byId("pair-answer").hidden = true;
    this.pair = { user, item, texts: this.texts.given };
    this.writing.begin(this.pair);
    this.#ask();
  }

  #rate(signal) {
    const { user, item, texts } = this.pair;
    return service.predict(user, item, texts, signal);
  }

  // Gives the prediction once it is shown, or null if there was none to be had; the evidence follows.
  async #ask(before = null) {
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    showProblem(byId("pair-problem"), null);
    setBusy(byId("pair"), true);
    this.#markOutdated("rating");
    try {
      const prediction = await this.#rate(asking.signal);
      this.#showRating(prediction, before);
      this.#explain(asking);
      return prediction;
    } catch (error) {
      if (this.#failed(asking, error) && !byId("pair-answer").hidden) byId("pair-problem").append(element("p", {}, `What follows is as of ${timeOfDay(this.rated)}.`));
      return null;
    }
  }

  async #explain(asking) {
    const { user, item, texts } = this.pair;
    try {
      this.#showEvidence(await service.explain(user, item, texts, asking.signal));
      setBusy(byId("pair"), false);
    } catch (error) {
      if (this.#failed(asking, error)) this.#hideEvidence("This could not be loaded.");
    }
  }

  // Whether this is told: of a question that was overtaken or left, nobody waits for an answer.
  #failed(asking, error) {
    if (asking !== this.asking) return false;
    setBusy(byId("pair"), false);
    if (error.name === "AbortError") return false;
    showProblem(byId("pair-problem"), error);
    return true;
  }

  #showRating(prediction, before) {
    this.rated = new Date();
    if (byId("pair-answer").hidden) this.#hideEvidence("Reading…");
    else this.#markOutdated("evidence");
    byId("pair-answer").hidden = false;
    const moved = before === null ? 0 : prediction.rating - before;
    const { user, item } = this.pair;
    byId("rating-body").replaceChildren(
      element("p", { class: "note whose" }, `${named(user)} on ${named(item)}`),
      element("p", { class: "number" }, element("strong", {}, stars(prediction.rating)), " ", element("span", { class: "note" }, "stars"),
        before === null ? null : element("span", { class: "moved" }, `${signed(moved, 3)} since ${stars(before)}`)),
      ratingScale(prediction, { before }),
      element("p", {}, intervalText(prediction)),
      element("p", { class: "note" }, grounds(prediction)),
    );
    announce(`${stars(prediction.rating)} stars. ${intervalText(prediction)}`);
  }

  // From where on what is shown is that of a former question: "rating", "evidence", or nowhere.
  #markOutdated(from) {
    byId("pair-answer").dataset.outdated = from;
  }

  #hideEvidence(note) {
    this.#markOutdated("");
    byId("contributions").replaceChildren(element("p", { class: "note" }, note));
    byId("evidence").replaceChildren();
    byId("evidence-note").textContent = note;
    byId("attention").hidden = true;
  }

  #showEvidence(answer) {
    this.#markOutdated("");
    byId("contributions").replaceChildren(contributionTable(answer));
    byId("evidence-note").replaceChildren(...evidenceNote(answer));
    byId("evidence").replaceChildren(...evidenceSides(answer));
    byId("attention").hidden = answer.heat_map === null;
    byId("heat-map").replaceChildren(...(answer.heat_map === null ? [] : [heatMap(answer)]));
  }
}

function anyReviewed(entities) {
  const reviewed = entities.filter((entity) => entity.counts.reviews > 1);
  return reviewed[Math.floor(Math.random() * reviewed.length)];
}
