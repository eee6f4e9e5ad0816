// A text field with a list that is searched while one types (the combobox pattern of WAI-ARIA's authoring practices).
// Any text may be entered: whom the list does not know may still be rated.

import { announce, element } from "./elements.js";
import { many, stars } from "./format.js";

const LISTED = 12;
const TYPING_PAUSE_MS = 120;

export class Combobox {
  // With `enterChooses` the enter key takes what was typed, where else it would submit the form.
  constructor(place, { label, find, enterChooses = false, onChoose = () => {} }) {
    this.find = find;
    this.enterChooses = enterChooses;
    this.onChoose = onChoose;
    const id = `${place.id}-input`;
    this.list = element("ul", {
      role: "listbox", id: `${id}-list`, "aria-label": label, hidden: true,
      on: { mousedown: (event) => event.preventDefault() }, // the field keeps the focus, also from who drags the scrollbar
    });
    this.nothing = element("p", { class: "note", hidden: true });
    this.input = element("input", {
      id, type: "text", dir: "auto", role: "combobox", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
      "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": this.list.id,
      on: {
        input: () => {
          this.#narrow();
          this.#searchSoon();
        },
        keydown: (event) => this.#onKey(event),
        click: () => this.#search(),
        blur: () => this.#close(),
      },
    });
    place.replaceChildren(element("label", { for: id }, label), element("div", { class: "combobox" }, this.input, this.list, this.nothing));
  }

  get value() { return this.input.value.trim(); }
  set value(text) { this.input.value = text; }

  // What was found for other letters is not chosen by mistake while the search for these is under way.
  #narrow() {
    this.#activate(null);
    const typed = this.value.toLowerCase();
    for (const option of this.list.children) option.hidden = !option.dataset.id.toLowerCase().startsWith(typed);
    if (!this.#options.length) this.#expand(false);
  }

  get #options() { return [...this.list.children].filter((option) => !option.hidden); }

  #expand(open) {
    this.list.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
  }

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
      if (error.name === "AbortError") return;
      this.#close();
      this.#say(`No suggestions: ${error.title ?? error.message}`); // the field still takes any text
    }
  }

  #say(text) {
    if (document.activeElement !== this.input) return;
    this.nothing.textContent = text;
    this.nothing.hidden = false;
    announce(text);
  }

  #show(found) {
    if (document.activeElement !== this.input) return;
    this.list.replaceChildren(...found.map((entity, index) => this.#option(entity, index)));
    this.#activate(null);
    this.#expand(found.length > 0);
    this.nothing.hidden = true;
    if (found.length) announce(`${many(found.length, "suggestion")}, arrow keys to choose`);
    else this.#say("No suggestions; any identifier may be entered");
  }

  #option(entity, index) {
    const { reviews, mean_rating: mean } = entity.counts;
    const known = reviews ? `${many(reviews, "review")}, mean ${stars(mean)}` : "no reviews";
    return element(
      "li",
      {
        role: "option", id: `${this.list.id}-${index}`, "aria-selected": "false", "data-id": entity.id,
        on: { mousedown: () => this.#choose(entity.id) },
      },
      element("bdi", { class: "identifier" }, entity.id),
      " ",
      element("span", { class: "note" }, known),
    );
  }

  #onKey(event) {
    if (event.isComposing) return; // the keys belong to the input method
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (this.list.hidden) this.#search();
      else this.#move(step);
    } else if (event.key === "Enter" && (this.active || (this.enterChooses && this.value))) {
      event.preventDefault();
      this.#choose(this.active ? this.active.dataset.id : this.value);
    } else if (event.key === "Enter") {
      this.#close(); // what was typed is asked for: no list, nor one still on its way, may cover the answer
    } else if (event.key === "Escape" && !(this.list.hidden && this.nothing.hidden)) {
      event.preventDefault();
      this.#close();
    }
  }

  #move(step) {
    const options = this.#options;
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
    this.#expand(false);
    this.nothing.hidden = true;
  }
}
