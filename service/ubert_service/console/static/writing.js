// Reviews written from this page: stored by the service like any other, and deleted again from here.

import { Combobox } from "./combobox.js";
import { announce, byId, element, setBusy, showProblem } from "./elements.js";
import { named, signed, stars } from "./format.js";
import { keep, kept } from "./kept.js";
import { ratingScale } from "./rating_scale.js";
import * as service from "./service.js";
import { starChoices, whenScaleChanges } from "./star_scale.js";

const GUEST = "console-guest";
const WRITTEN = "written"; // where it is kept

export class Writing {
  // `rate` gives the prediction for the pair as things are; `rateAgain`, given the rating before, shows what has become
  // of it, and gives that prediction or null.
  constructor({ rate, rateAgain }) {
    Object.assign(this, { rate, rateAgain });
    this.written = kept(WRITTEN, []);
    this.changing = false;
    this.moved = element("div");
    this.list = element("div");
    byId("written").append(this.moved, this.list);
    this.#show();
    this.#offerStars();
    whenScaleChanges(() => this.#offerStars());
    byId("writing-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#store();
    });
    for (const radio of byId("writing-form").querySelectorAll("[name=side]")) radio.addEventListener("change", () => this.#askForOther());
  }

  // What is being written stays where the pair is only rated again.
  begin(pair) {
    const again = this.pair?.user === pair.user && this.pair.item === pair.item;
    this.pair = pair;
    this.moved.replaceChildren(); // what changed another rating
    if (again) return;
    byId("writing-item-label").textContent = `Someone else reviews ${named(pair.item)}`;
    byId("writing-user-label").textContent = `${named(pair.user)} reviews another item`;
    this.#askForOther();
    showProblem(byId("writing-problem"), null);
  }

  #offerStars() {
    byId("writing-stars").replaceChildren(
      element("legend", {}, "Stars"),
      ...starChoices().map((value) =>
        element("label", {}, element("input", { type: "radio", name: "rating", value, required: true }), ` ${value} ★`)),
    );
  }

  get #side() { return byId("writing-form").elements.side.value; }

  // Not the pair itself: a rating never reads the review that its own user wrote on its own item.
  #askForOther() {
    const aboutItem = this.#side === "item";
    this.other = new Combobox(byId("writing-other"), aboutItem
      ? { label: "Reviewer", find: service.findUsers, enterChooses: true }
      : { label: "Other item", find: service.findItems, enterChooses: true });
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
    if (!this.other.value) {
      this.#refuse("Something is missing", "Choose who reviews what.");
      return;
    }
    if (review.user === this.pair.user && review.item === this.pair.item) {
      this.#refuse("This would change nothing", "A rating never reads the review that this user wrote on this item.");
      return;
    }
    await this.#attempt(async () => {
      const { review_id: name } = await service.writeReview(review);
      const { user, item, rating } = review;
      this.#keep([...this.written, { name, user, item, rating }]);
      byId("writing-text").value = "";
      return "stored";
    });
  }

  #refuse(title, detail) {
    showProblem(byId("writing-problem"), { title, detail });
  }

  async #remove(review) {
    await this.#attempt(async () => {
      await service.removeReview(review.name, review.user, review.item).catch((error) => {
        if (error.status !== 404) throw error; // it was deleted from elsewhere
      });
      this.#keep(this.written.filter((other) => other !== review));
      return "deleted";
    });
  }

  #keep(written) {
    this.written = written;
    keep(WRITTEN, written);
    this.#show();
  }

  // One change at a time, or a button pressed twice would delete what is deleted. It is not disabled, which would take
  // the focus from whoever pressed it. What is said of one pair's rating is not said below another.
  async #attempt(change) {
    if (this.changing) return;
    this.changing = true;
    setBusy(byId("writing"), true);
    showProblem(byId("writing-problem"), null);
    const { pair } = this;
    try {
      // Rated just before, or what others have written since the pair was shown would pass for the effect of this.
      const before = await this.rate().then(({ rating }) => rating, () => null);
      const done = await change();
      if (pair !== this.pair) return;
      const after = await this.rateAgain(before);
      if (pair === this.pair) this.#tell(done, before, after);
    } catch (error) {
      showProblem(byId("writing-problem"), error);
    } finally {
      this.changing = false;
      setBusy(byId("writing"), false);
    }
  }

  #tell(done, before, after) {
    const text = before === null || after === null
      ? `Review ${done}. What it changed could not be loaded.`
      : `Review ${done}: ${stars(before)} → ${stars(after.rating)} stars (${signed(after.rating - before, 3)}).`;
    this.moved.replaceChildren(element("p", { class: "moved" }, text), ...(after ? [ratingScale(after, { before })] : []));
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
