// Candidates, listed here or stored as a set, ordered for one user; every row leads to the pair.

import { address } from "./address.js";
import { Combobox } from "./combobox.js";
import { announce, byId, element, showProblem, table } from "./elements.js";
import { count, many, named, stars } from "./format.js";
import { ratingScale, shortGrounds, staleness } from "./rating_scale.js";
import * as service from "./service.js";

const FILLED = 50;
const SHOWN = 200; // rows at a time: the most that can be ranked would keep a browser busy for seconds

export class RankingView {
  constructor() {
    this.running = 0;
    this.user = new Combobox(byId("ranking-user"), { label: "User", find: service.findUsers });
    this.adding = new Combobox(byId("ranking-add"), {
      label: "Add an item",
      find: service.findItems,
      enterChooses: true,
      onChoose: (item) => {
        this.#add([item]);
        this.adding.value = "";
      },
    });
    byId("ranking-fill").addEventListener("click", () => this.#attempt(async () => {
      const prefix = this.adding.value;
      const found = await service.findItems(prefix, FILLED);
      if (!found.length) throw new service.Problem({ title: "No such item", detail: prefix ? `No known item begins with ${named(prefix)}.` : "The store knows no item." });
      this.#add(found.map((item) => item.id));
    }));
    byId("ranking-set").addEventListener("change", () => this.#showList());
    byId("ranking-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#attempt(() => this.#rank());
    });
  }

  enter({ user }) {
    if (user) this.user.value = user;
    this.#attempt(() => this.#findSets());
  }

  leave() { this.asking?.abort(); }

  async #findSets() {
    const names = await service.candidateSets().catch((error) => {
      throw Object.assign(error, { title: `The stored sets could not be listed: ${error.title}` }); // all else may still work
    });
    const chosen = byId("ranking-set").value; // as it is now, not as it was when the names were asked for
    byId("ranking-set").replaceChildren(
      element("option", { value: "" }, "the list below"),
      ...names.map((name) => element("option", { value: name, selected: name === chosen }, name)),
    );
    byId("ranking-from").hidden = names.length === 0;
    this.#showList();
  }

  #showList() {
    const stored = byId("ranking-set").value !== "";
    for (const id of ["ranking-add", "ranking-fill", "ranking-list"]) byId(id).hidden = stored;
  }

  #candidates() {
    return [...new Set(byId("ranking-candidates").value.split("\n").map((line) => line.trim()).filter(Boolean))];
  }

  #add(items) {
    const candidates = [...new Set([...this.#candidates(), ...items])];
    byId("ranking-candidates").value = candidates.join("\n");
    announce(many(candidates.length, "candidate"));
  }

  async #attempt(work) {
    showProblem(byId("ranking-problem"), null);
    this.running += 1;
    byId("ranking").setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      if (error.name !== "AbortError") showProblem(byId("ranking-problem"), error);
    } finally {
      this.running -= 1;
      if (!this.running) byId("ranking").removeAttribute("aria-busy");
    }
  }

  async #rank() {
    const user = this.user.value;
    const set = byId("ranking-set").value;
    const candidates = this.#candidates();
    if (!user || !(set || candidates.length)) {
      throw new service.Problem({ title: "Something is missing", detail: "Choose a user, and one candidate or more." });
    }
    const least = byId("ranking-least").value;
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    try {
      this.#show(await service.rank({
        user,
        ...(set ? { candidate_set: set } : { candidates }),
        top_k: Number(byId("ranking-top").value) || undefined,
        min_rating: least === "" ? undefined : Number(least),
        exclude_rated: byId("ranking-unrated").checked,
      }, asking.signal));
    } catch (error) {
      if (error.name !== "AbortError") byId("ranking-answer").replaceChildren(); // or it would pass for the answer to this question
      throw error;
    }
  }

  #show({ user, items, candidates, stale_s }) {
    if (!items.length) {
      const nothing = candidates
        ? `None of ${many(candidates, "candidate")} is rated that high for ${named(user)}.`
        : `No candidate is left: ${named(user)} has reviewed them all.`;
      byId("ranking-answer").replaceChildren(element("p", {}, nothing));
      announce(nothing);
      return;
    }
    const ranked = table({
      caption: `${many(items.length, "item")} of ${count(candidates)} for ${named(user)}, best first`,
      className: "ranked",
      head: [{ text: "Rank", class: "figure" }, { text: "Item" }, { text: "Rating", class: "figure" }, { text: "On the scale" }, { text: "Reviews read", class: "figure" }, { text: "Rated by" }],
      rows: [],
    });
    const stale = staleness({ stale_s });
    byId("ranking-answer").replaceChildren(...(stale ? [element("p", { class: "note" }, stale)] : []), ranked, moreRows(ranked.querySelector("tbody"), items));
    announce(`${many(items.length, "item")} ranked; the best is ${named(items[0].item)} with ${stars(items[0].rating)} stars`);
  }
}

// Fills the table by portions; the button for the next is nowhere once all are shown.
function moreRows(body, items) {
  const button = element("button", { type: "button", on: { click: () => add() } });
  const add = () => {
    const shown = body.rows.length;
    const next = items.slice(shown, shown + SHOWN);
    body.append(...next.map((item, index) => row(item, shown + index)));
    const left = items.length - body.rows.length;
    button.textContent = `Show ${count(Math.min(left, SHOWN))} more of ${count(left)}`;
    button.hidden = left === 0;
    if (shown) body.rows[shown].querySelector("a").focus(); // where reading goes on
  };
  add();
  return button;
}

// The link covers its row, so a click anywhere in the row follows it.
const row = (prediction, index) =>
  element(
    "tr",
    {},
    element("td", { class: "figure" }, String(index + 1)),
    element("th", { scope: "row" }, element("a", { class: "covers-row", href: address("pair", { user: prediction.user, item: prediction.item }) }, element("bdi", {}, prediction.item))),
    element("td", { class: "figure" }, stars(prediction.rating)),
    element("td", {}, ratingScale(prediction, { small: true })),
    element("td", { class: "figure" }, `${prediction.user_reviews} + ${prediction.item_reviews}`),
    element("td", {}, shortGrounds(prediction)),
  );
