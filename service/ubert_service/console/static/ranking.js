// Candidates, listed here or stored as a set, ordered for one user; every row leads to the pair.

import { address } from "./address.js";
import { Combobox } from "./combobox.js";
import { announce, byId, element, setBusy, showProblem, table } from "./elements.js";
import { count, many, named, stars } from "./format.js";
import { keep, kept } from "./kept.js";
import { ratingScale, shortGrounds, staleness } from "./rating_scale.js";
import * as service from "./service.js";

const CANDIDATES = "candidates"; // where they are kept
const FILLED = 50;
const SHOWN = 200; // rows at a time: the most that can be ranked would keep a browser busy for seconds

export class RankingView {
  constructor() {
    this.running = 0;
    this.ranked = null; // the address of the ranking that is shown or under way
    this.filled = {}; // the prefix that items were last added by, and where its next begin
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
    byId("ranking-candidates").value = kept(CANDIDATES, "");
    byId("ranking-candidates").addEventListener("input", () => this.#keep());
    byId("ranking-fill").addEventListener("click", () => this.#attempt(() => this.#fill()));
    byId("ranking-set").addEventListener("change", () => this.#showList());
    byId("ranking-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#attempt(() => this.#rank());
    });
  }

  // The ranking for one user must not stand below the name of another.
  enter({ user, set }) {
    const asked = address("ranking", { user, set });
    if (!user || asked === this.ranked) {
      this.#attempt(() => this.#findSets());
      return;
    }
    this.leave();
    this.ranked = null;
    this.user.value = user;
    byId("ranking-set").value = ""; // unless the address names one, which may first have to be listed
    byId("ranking-answer").replaceChildren();
    const listed = byId("ranking-candidates").value;
    this.#attempt(async () => {
      await this.#findSets(set);
      if (set && byId("ranking-set").value !== set) throw new service.Problem({ title: "No such set", detail: `No stored set is named ${named(set)}.` });
      const untouched = !this.ranked && byId("ranking-candidates").value === listed; // while the sets were being read
      if (untouched && this.#address() === asked && this.#isAnswerable()) await this.#rank();
    });
  }

  leave() { this.asking?.abort(); }

  // The service is another, or ready again: what it did not say may now be had.
  refresh() {
    if (!this.listed) this.#attempt(() => this.#findSets());
  }

  #address() { return address("ranking", { user: this.user.value, set: byId("ranking-set").value }); }

  #isAnswerable() { return this.user.value && (byId("ranking-set").value || this.#candidates().length); }

  async #findSets(wanted) {
    this.listed = false;
    const names = await service.candidateSets().catch((error) => {
      throw Object.assign(error, { title: `The stored sets could not be listed: ${error.title}` }); // all else may still work
    });
    this.listed = true;
    const chosen = wanted ?? byId("ranking-set").value; // as it is now, not as it was when the names were asked for
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
    this.#keep();
    announce(many(candidates.length, "candidate"));
  }

  #keep() { keep(CANDIDATES, byId("ranking-candidates").value); }

  // The next of those that begin with what is typed; of an empty list, the first.
  async #fill() {
    const prefix = this.adding.value;
    const again = this.filled.prefix === prefix && this.#candidates().length > 0;
    if (again && !this.filled.next) throw new service.Problem({ title: "That is all", detail: prefix ? `No further item begins with ${named(prefix)}.` : "The store knows no further item." });
    const { found, next } = await service.itemsFrom({ prefix, limit: FILLED, cursor: again ? this.filled.next : null });
    if (!found.length) throw new service.Problem({ title: "No such item", detail: prefix ? `No known item begins with ${named(prefix)}.` : "The store knows no item." });
    this.filled = { prefix, next };
    this.#add(found.map((item) => item.id));
  }

  async #attempt(work) {
    showProblem(byId("ranking-problem"), null);
    this.running += 1;
    setBusy(byId("ranking"), true);
    try {
      await work();
    } catch (error) {
      if (error.name !== "AbortError") showProblem(byId("ranking-problem"), error);
    } finally {
      this.running -= 1;
      if (!this.running) setBusy(byId("ranking"), false);
    }
  }

  async #rank() {
    if (!this.#isAnswerable()) {
      throw new service.Problem({ title: "Something is missing", detail: "Choose a user, and one candidate or more." });
    }
    const least = byId("ranking-least").value;
    this.ranked = location.hash = this.#address();
    const set = byId("ranking-set").value;
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    try {
      this.#show(await service.rank({
        user: this.user.value,
        ...(set ? { candidate_set: set } : { candidates: this.#candidates() }),
        top_k: Number(byId("ranking-top").value) || undefined,
        min_rating: least === "" ? undefined : Number(least),
        exclude_rated: byId("ranking-unrated").checked,
      }, asking.signal));
    } catch (error) {
      if (asking === this.asking) this.ranked = null;
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
      head: [{ text: "Rank", class: "figure" }, { text: "Item" }, { text: "Rating", class: "figure" }, { text: "On the scale" }, { text: "Reviews used", class: "figure" }, { text: "Rated by" }],
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
    element("td", {}, shortGrounds(prediction), prediction.item_known ? null : ", item not seen in training"),
  );
