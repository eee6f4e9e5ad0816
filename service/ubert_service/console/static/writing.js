// Reviews written from this page: stored by the service like any other, and deleted again from here.

import { Combobox } from "./combobox.js";
import { announce, byId, element, showProblem } from "./elements.js";
import { named, signed, stars } from "./format.js";
import { ratingScale } from "./rating_scale.js";
import * as service from "./service.js";
import { starChoices, whenScaleChanges } from "./star_scale.js";

const GUEST = "console-guest";

export class Writing {
  // `rateAgain` loads the pair anew and gives its rating before and the prediction after, or null.
  constructor(rateAgain) {
    this.rateAgain = rateAgain;
    this.written = [];
    this.changing = false;
    this.moved = element("div");
    this.list = element("div");
    byId("written").append(this.moved, this.list);
    this.#offerStars();
    whenScaleChanges(() => this.#offerStars());
    byId("writing-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#store();
    });
    for (const radio of byId("writing-form").querySelectorAll("[name=side]")) radio.addEventListener("change", () => this.#askForOther());
  }

  begin(pair) {
    this.pair = pair;
    byId("writing-item-label").textContent = `Someone else reviews ${named(pair.item)}`;
    byId("writing-user-label").textContent = `${named(pair.user)} reviews another item`;
    this.#askForOther();
    showProblem(byId("writing-problem"), null);
    this.moved.replaceChildren(); // the rating of another pair
  }

  #offerStars() {
    const choices = starChoices();
    byId("writing-stars").replaceChildren(
      element("legend", {}, "Stars"),
      ...choices.map((value) =>
        element("label", {}, element("input", { type: "radio", name: "rating", value, checked: value === choices.at(-1) }), ` ${value} ★`)),
    );
  }

  get #side() { return byId("writing-form").elements.side.value; }

  // Not the pair itself: a rating never reads the review that its own user wrote on its own item.
  #askForOther() {
    const aboutItem = this.#side === "item";
    this.other = new Combobox(byId("writing-other"), aboutItem
      ? { label: "Reviewer", find: service.findUsers }
      : { label: "Other item", find: service.findItems });
    this.other.value = aboutItem ? GUEST : "";
  }

  async #store() {
    const form = byId("writing-form");
    const review = {
      user: this.#side === "item" ? this.other.value : this.pair.user,
      item: this.#side === "item" ? this.pair.item : this.other.value,
      rating: Number(form.elements.rating.value),
      text: byId("writing-text").value,
    };
    await this.#attempt(async () => {
      if (!this.other.value) throw new service.Problem({ title: "Something is missing", detail: "Choose who reviews what." });
      if (review.user === this.pair.user && review.item === this.pair.item) {
        throw new service.Problem({ title: "This would change nothing", detail: "A rating never reads the review that this user wrote on this item." });
      }
      const stored = await service.writeReview(review);
      this.written.push({ ...review, name: stored.review_id });
      byId("writing-text").value = "";
      return "stored";
    });
  }

  async #remove(review) {
    await this.#attempt(async () => {
      await service.removeReview(review.name, review.user, review.item);
      this.written = this.written.filter((other) => other !== review);
      return "deleted";
    });
  }

  // One change at a time, or a button pressed twice would delete what is deleted. It is not disabled, which would take
  // the focus from whoever pressed it. What is said of one pair's rating is not said below another.
  async #attempt(change) {
    if (this.changing) return;
    this.changing = true;
    byId("writing").setAttribute("aria-busy", "true");
    showProblem(byId("writing-problem"), null);
    const { pair } = this;
    try {
      const done = await change();
      this.#show();
      const rated = pair === this.pair ? await this.rateAgain() : null;
      if (pair === this.pair) this.#tell(done, rated);
    } catch (error) {
      showProblem(byId("writing-problem"), error);
    } finally {
      this.changing = false;
      byId("writing").removeAttribute("aria-busy");
    }
  }

  #tell(done, rated) {
    const text = rated === null
      ? `Review ${done}. The new rating could not be loaded.`
      : `Review ${done}: ${stars(rated.before)} → ${stars(rated.after.rating)} stars (${signed(rated.after.rating - rated.before, 3)}).`;
    this.moved.replaceChildren(element("p", { class: "moved" }, text), ...(rated ? [ratingScale(rated.after, { before: rated.before })] : []));
    byId("written").scrollIntoView({ block: "nearest" });
    announce(text);
  }

  #show() {
    const focused = this.list.contains(document.activeElement);
    const rows = this.written.map((review) =>
      element(
        "li",
        {},
        `★ ${review.rating} by ${named(review.user)} on ${named(review.item)} `,
        element("button", { type: "button", on: { click: () => this.#remove(review) } }, "Delete", element("span", { class: "unseen" }, ` the review of ${review.item} by ${review.user}`)),
      ));
    this.list.replaceChildren(...(rows.length ? [element("h3", {}, "Written from this page"), element("ul", { class: "written" }, ...rows)] : []));
    if (focused) byId("writing-title").focus(); // the button that was pressed is gone
  }
}
