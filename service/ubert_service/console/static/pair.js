// One pair: its rating at once, then what the rating was made from.

import { address } from "./address.js";
import { Combobox } from "./combobox.js";
import { contributionTable } from "./contributions.js";
import { announce, byId, element, showProblem } from "./elements.js";
import { evidenceSides } from "./evidence.js";
import { many, signed, stars } from "./format.js";
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
    else this.user.input.focus();
  }

  leave() { this.asking?.abort(); }

  #go(user, item) {
    if (!user || !item) {
      showProblem(byId("pair-problem"), { title: "One more is needed", detail: "Choose a user and an item." });
      (user ? this.item : this.user).input.focus();
      return;
    }
    const next = address("pair", { user, item });
    if (location.hash === next) this.#load(user, item);
    else location.hash = next;
  }

  async #goAnywhere() {
    try {
      const [users, items] = await Promise.all([service.findUsers("", PICKED_FROM), service.findItems("", PICKED_FROM)]);
      const [user, item] = [users, items].map(anyReviewed);
      if (user && item) this.#go(user.id, item.id);
    } catch (error) {
      showProblem(byId("pair-problem"), error);
    }
  }

  async #load(user, item) {
    this.texts.keepFor(user);
    this.pair = { user, item };
    this.before = null;
    this.writing.begin(this.pair);
    byId("pair-answer").hidden = true;
    await this.#ask();
  }

  async #reload() {
    this.before = this.rating;
    await this.#ask();
    return { before: this.before, after: this.rating };
  }

  async #ask() {
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    const { user, item } = this.pair;
    const texts = this.texts.given;
    showProblem(byId("pair-problem"), null);
    byId("pair").setAttribute("aria-busy", "true");
    try {
      this.#showRating(await service.predict(user, item, texts, asking.signal));
      this.#showEvidence(await service.explain(user, item, texts, asking.signal));
    } catch (error) {
      if (error.name === "AbortError") return;
      showProblem(byId("pair-problem"), error);
      byId("evidence-note").textContent = "None could be had.";
    } finally {
      if (asking === this.asking) byId("pair").removeAttribute("aria-busy");
    }
  }

  #showRating(prediction) {
    this.rating = prediction.rating;
    byId("pair-answer").hidden = false;
    const moved = this.before === null ? 0 : prediction.rating - this.before;
    byId("rating-body").replaceChildren(
      element("p", { class: "number" }, element("strong", {}, stars(prediction.rating)), " ", element("span", { class: "note" }, "stars"),
        this.before === null ? null : element("span", { class: "moved" }, `${signed(moved, 3)} since ${stars(this.before)}`)),
      ratingScale(prediction, { before: this.before }),
      element("p", {}, intervalText(prediction)),
      element("p", { class: "note" }, grounds(prediction)),
    );
    for (const id of ["contributions", "evidence"]) byId(id).replaceChildren();
    byId("evidence-note").textContent = "Reading…";
    byId("attention").hidden = true;
    announce(`${stars(prediction.rating)} stars. ${intervalText(prediction)}`);
  }

  #showEvidence(answer) {
    byId("contributions").replaceChildren(contributionTable(answer));
    const { reviews } = answer;
    byId("evidence-note").textContent = reviews.length
      ? `${many(reviews.length, "review")}: those that the network read before those whose rating alone counts, the strongest first. An effect is the rating less what it would be without the review, computed by rating again.`
      : "No review of either side was read.";
    byId("evidence").replaceChildren(...evidenceSides(answer));
    byId("attention").hidden = answer.heat_map === null;
    byId("heat-map").replaceChildren(...(answer.heat_map === null ? [] : [heatMap(answer)]));
  }
}

function anyReviewed(entities) {
  const reviewed = entities.filter((entity) => entity.counts.reviews > 1);
  return reviewed[Math.floor(Math.random() * reviewed.length)];
}
