// Candidates ordered for one user; every row leads to the pair.

import { address } from "./address.js";
import { Combobox } from "./combobox.js";
import { announce, byId, element, showProblem, table } from "./elements.js";
import { count, many, stars } from "./format.js";
import { ratingScale } from "./rating_scale.js";
import * as service from "./service.js";

const FILLED = 50;

export class RankingView {
  constructor() {
    this.user = new Combobox(byId("ranking-user"), { label: "User", find: service.findUsers });
    this.adding = new Combobox(byId("ranking-add"), {
      label: "Add an item",
      find: service.findItems,
      onChoose: (item) => {
        this.#add([item]);
        this.adding.value = "";
      },
    });
    byId("ranking-fill").addEventListener("click", () => this.#attempt(async () => {
      const found = await service.findItems(this.adding.value, FILLED);
      this.#add(found.map((item) => item.id));
      announce(`${many(this.#candidates().length, "candidate")}`);
    }));
    byId("ranking-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#attempt(() => this.#rank());
    });
  }

  enter({ user }) { if (user) this.user.value = user; }

  leave() {}

  #candidates() {
    return [...new Set(byId("ranking-candidates").value.split("\n").map((line) => line.trim()).filter(Boolean))];
  }

  #add(items) {
    byId("ranking-candidates").value = [...new Set([...this.#candidates(), ...items])].join("\n");
  }

  async #attempt(work) {
    showProblem(byId("ranking-problem"), null);
    byId("ranking").setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      showProblem(byId("ranking-problem"), error);
    } finally {
      byId("ranking").removeAttribute("aria-busy");
    }
  }

  async #rank() {
    const [user, candidates] = [this.user.value, this.#candidates()];
    if (!user || !candidates.length) {
      throw new service.Problem({ title: "One more is needed", detail: "Choose a user, and one candidate or more." });
    }
    const answer = await service.rank({ user, candidates, top_k: Number(byId("ranking-top").value) || undefined });
    byId("ranking-answer").replaceChildren(
      table({
        caption: `${many(answer.items.length, "item")} of ${count(candidates.length)} for ${user}, best first`,
        className: "ranked",
        head: [{ text: "Rank", class: "figure" }, { text: "Item" }, { text: "Rating", class: "figure" }, { text: "On the scale" }, { text: "Reviews read", class: "figure" }, { text: "Basis" }],
        rows: answer.items.map((item, index) => row(item, index)),
      }),
    );
    announce(`${many(answer.items.length, "item")} ranked; the best is ${answer.items[0].item} with ${stars(answer.items[0].rating)} stars`);
  }
}

// The link covers its row, so a click anywhere in the row follows it.
const row = (prediction, index) =>
  element(
    "tr",
    {},
    element("td", { class: "figure" }, String(index + 1)),
    element("th", { scope: "row" }, element("a", { class: "covers-row", href: address("pair", { user: prediction.user, item: prediction.item }) }, prediction.item)),
    element("td", { class: "figure" }, stars(prediction.rating)),
    element("td", {}, ratingScale(prediction, { small: true })),
    element("td", { class: "figure" }, `${prediction.user_reviews} + ${prediction.item_reviews}`),
    element("td", {}, prediction.basis),
  );
