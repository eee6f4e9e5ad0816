// Texts that a person brings along for the user of the pair: sent with each question, kept in this page's memory alone.

import { byId, element } from "./elements.js";
import { starChoices, whenScaleChanges } from "./star_scale.js";

const MOST = 20;
const MOST_CHARACTERS = 10_000;

export class OwnTexts {
  constructor() {
    this.user = null;
    this.rows = [];
    this.made = 0;
    byId("own-texts-add").addEventListener("click", () => this.#add().focus());
    this.#add();
    whenScaleChanges(() => this.rows.forEach(({ stars }) => offerStars(stars)));
  }

  // What has been asked for one user says nothing of another; what was typed since is whoever's is asked for next.
  keepFor(user) {
    if (this.user !== null && this.user !== user) {
      byId("own-texts-list").replaceChildren();
      this.rows = [];
      this.#add();
    }
    this.user = user;
  }

  get given() {
    return this.rows
      .map(({ text, stars }) => ({ text: text.value.trim(), rating: stars.value ? Number(stars.value) : null }))
      .filter(({ text }) => text);
  }

  #add() {
    this.made += 1;
    const id = `own-text-${this.made}`;
    const number = this.rows.length + 1;
    const text = element("textarea", { id, rows: 3, maxlength: MOST_CHARACTERS, on: { input: () => { this.user = null; } } });
    const stars = element("select", { id: `${id}-stars` });
    offerStars(stars);
    this.rows.push({ text, stars });
    byId("own-texts-list").append(
      element(
        "li",
        { class: "query" },
        element("div", { class: "field" }, element("label", { for: id }, `Text ${number}`), text),
        element("div", { class: "field narrow" }, element("label", { for: stars.id }, `Stars of text ${number}`), stars),
      ),
    );
    byId("own-texts-add").disabled = number >= MOST;
    return text;
  }
}

function offerStars(select) {
  const chosen = select.value;
  select.replaceChildren(
    element("option", { value: "" }, "none"),
    ...starChoices().map((value) => element("option", { value, selected: String(value) === chosen }, `${value} ★`)),
  );
}
