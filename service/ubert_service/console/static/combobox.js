// A text field with a list that is searched while one types (the combobox pattern of WAI-ARIA's authoring practices).
// Any text may be entered: whom the list does not know may still be rated.

import { announce, element } from "./elements.js";
import { many, stars } from "./format.js";

const LISTED = 12;
const TYPING_PAUSE_MS = 120;

export class Combobox {
  constructor(place, { label, find, placeholder = "", onChoose = () => {} }) {
    this.find = find;
    this.onChoose = onChoose;
    const id = `${place.id}-input`;
    this.list = element("ul", { role: "listbox", id: `${id}-list`, "aria-label": label, hidden: true });
    this.input = element("input", {
      id, placeholder, type: "text", role: "combobox", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
      "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": this.list.id,
      on: {
        input: () => this.#searchSoon(),
        keydown: (event) => this.#onKey(event),
        click: () => this.#search(),
        blur: () => this.#close(),
      },
    });
    place.replaceChildren(element("label", { for: id }, label), element("div", { class: "combobox" }, this.input, this.list));
  }

  get value() { return this.input.value.trim(); }
  set value(text) { this.input.value = text; }

  #searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#search(), TYPING_PAUSE_MS);
  }

  async #search() {
    this.asking?.abort();
    this.asking = new AbortController();
    try {
      this.#show(await this.find(this.value, LISTED, this.asking.signal));
    } catch (error) {
      if (error.name !== "AbortError") this.#close(); // the field still takes any text; predicting will say what is wrong
    }
  }

  #show(found) {
    if (document.activeElement !== this.input) return;
    this.list.replaceChildren(...found.map((entity, index) => this.#option(entity, index)));
    this.#activate(null);
    this.list.hidden = found.length === 0;
    this.input.setAttribute("aria-expanded", String(found.length > 0));
    announce(found.length ? `${many(found.length, "suggestion")}, arrow keys to choose` : "No suggestions; any identifier may be entered");
  }

  #option(entity, index) {
    const { reviews, mean_rating: mean } = entity.counts;
    const known = reviews ? `${many(reviews, "review")}, mean ${stars(mean)}` : "no reviews";
    return element(
      "li",
      {
        role: "option", id: `${this.list.id}-${index}`, "aria-selected": "false", "data-id": entity.id,
        on: { mousedown: (event) => { event.preventDefault(); this.#choose(entity.id); } },
      },
      element("span", { class: "identifier" }, entity.id),
      " ",
      element("span", { class: "note" }, known),
    );
  }

  #onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (this.list.hidden) this.#search();
      else this.#move(step);
    } else if (event.key === "Enter" && this.active) {
      event.preventDefault();
      this.#choose(this.active.dataset.id);
    } else if (event.key === "Escape" && !this.list.hidden) {
      event.preventDefault();
      this.#close();
    }
  }

  #move(step) {
    const options = [...this.list.children];
    const at = this.active ? options.indexOf(this.active) + step : step > 0 ? 0 : options.length - 1;
    this.#activate(options[(at + options.length) % options.length]);
  }

  #activate(option) {
    this.active?.setAttribute("aria-selected", "false");
    this.active = option;
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) this.input.setAttribute("aria-activedescendant", option.id);
    else this.input.removeAttribute("aria-activedescendant");
  }

  #choose(identifier) {
    this.value = identifier;
    this.#close();
    this.onChoose(identifier);
  }

  #close() {
    clearTimeout(this.timer);
    this.asking?.abort();
    this.#activate(null);
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }
}
