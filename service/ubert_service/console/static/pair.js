// One pair: its rating at once, then what the rating was made from.

import { address } from "./address.js";
import { Combobox } from "./combobox.js";
import { contributionTable } from "./contributions.js";
import { announce, byId, element, showProblem } from "./elements.js";
import { evidenceNote, evidenceSides } from "./evidence.js";
import { named, signed, stars } from "./format.js";
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
    this.writing = new Writing(() => this.#reload());
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

  async #load(user, item) {
    this.leave();
    this.texts.keepFor(user);
    this.pair = { user, item };
    this.before = null;
    this.writing.begin(this.pair);
    byId("pair-answer").hidden = true;
    await this.#ask();
  }

  // The rating before and the prediction after, or null if there was none to be had.
  async #reload() {
    const before = (this.before = this.rating);
    const after = await this.#ask();
    return after && { before, after };
  }

  async #ask() {
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    const { user, item } = this.pair;
    const texts = this.texts.given;
    showProblem(byId("pair-problem"), null);
    byId("pair").setAttribute("aria-busy", "true");
    let prediction = null;
    try {
      prediction = await service.predict(user, item, texts, asking.signal);
      this.#showRating(prediction);
      this.#showEvidence(await service.explain(user, item, texts, asking.signal));
    } catch (error) {
      if (error.name === "AbortError") return null;
      showProblem(byId("pair-problem"), error);
      this.#hideEvidence("This could not be loaded.");
    } finally {
      if (asking === this.asking) byId("pair").removeAttribute("aria-busy");
    }
    return prediction;
  }

  #showRating(prediction) {
    this.rating = prediction.rating;
    byId("pair-answer").hidden = false;
    const moved = this.before === null ? 0 : prediction.rating - this.before;
    const { user, item } = this.pair;
    byId("rating-body").replaceChildren(
      element("p", { class: "note whose" }, `${named(user)} on ${named(item)}`),
      element("p", { class: "number" }, element("strong", {}, stars(prediction.rating)), " ", element("span", { class: "note" }, "stars"),
        this.before === null ? null : element("span", { class: "moved" }, `${signed(moved, 3)} since ${stars(this.before)}`)),
      ratingScale(prediction, { before: this.before }),
      element("p", {}, intervalText(prediction)),
      element("p", { class: "note" }, grounds(prediction)),
    );
    // After a review was written the old evidence stays until the new has come: the page would jump under its writer.
    if (this.before === null) this.#hideEvidence("Reading…");
    announce(`${stars(prediction.rating)} stars. ${intervalText(prediction)}`);
  }

  #hideEvidence(note) {
    byId("contributions").replaceChildren(element("p", { class: "note" }, note));
    byId("evidence").replaceChildren();
    byId("evidence-note").textContent = note;
    byId("attention").hidden = true;
  }

  #showEvidence(answer) {
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
