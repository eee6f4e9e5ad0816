// Both sides' reviews, each with its effect, and its words marked by what they contribute.

import { element } from "./elements.js";
import { day, many, signed } from "./format.js";
import { LETTER, words } from "./words.js";

const SHOWN = 3; // of each side; the others are one key press away
const FAINTEST = 0.1; // of the strongest word in this answer: less is left unmarked
const STRONG = 0.4; // from here on a word also carries its sign
const NAMED_WORDS = 3;

export function evidenceSides({ user, item, reviews }) {
  const strongest = Math.max(...reviews.flatMap((review) => words(review).map((word) => Math.abs(word.stars))), 0);
  return [["user", `By ${user}`, "This user has no reviews that could be read."], ["item", `About ${item}`, "This item has no reviews that could be read."]].map(
    ([side, title, none]) => {
      const mine = reviews.filter((review) => review.side === side).sort((one, other) => Math.abs(other.effect) - Math.abs(one.effect));
      return element(
        "section",
        { "aria-label": title },
        element("h3", {}, title),
        mine.length ? cards(mine.slice(0, SHOWN), strongest) : element("p", { class: "note" }, none),
        mine.length > SHOWN ? theRest(mine.slice(SHOWN), strongest) : null,
      );
    },
  );
}

const cards = (reviews, strongest) =>
  element("ol", { class: "reviews" }, ...reviews.map((review) => element("li", {}, card(review, strongest))));

const theRest = (reviews, strongest) =>
  element("details", {}, element("summary", {}, `${many(reviews.length, "weaker one")}`), cards(reviews, strongest));

function card(review, strongest) {
  const counterpart = review.side === "user" ? `on ${review.item}` : `by ${review.user}`;
  return element(
    "article",
    { class: "review", "aria-label": `Review ${counterpart}` },
    element(
      "header",
      {},
      element("span", { class: "given", role: "img", "aria-label": `rated ${review.rating} stars` }, `★ ${review.rating}`),
      element("span", { class: "note" }, `${counterpart}, ${day(review.timestamp)}`),
      effect(review.effect),
    ),
    ...body(review, strongest),
  );
}

function effect(value) {
  const shown = signed(value, 3);
  const [sign, verb] = shown.startsWith("+") ? ["▲", "raises"] : Number(shown) === 0 ? ["■", "leaves"] : ["▼", "lowers"];
  return element(
    "span",
    { class: "effect" },
    element("span", { class: "sign", "aria-hidden": "true" }, sign),
    verb === "leaves" ? " no effect" : ` ${verb} by ${shown.slice(1)}`,
  );
}

function body(review, strongest) {
  const unread = review.token_contributions.length ? [] : [element("p", { class: "note" }, "Its text was not read: it counts by its rating.")];
  if (review.text === null) return unread.length ? unread : [element("p", { class: "note" }, "The store keeps no texts.")];
  const marked = words(review);
  return [element("p", { class: "text" }, ...markedText(review.text, marked, strongest)), ...summary(marked, strongest), ...unread];
}

function markedText(text, marked, strongest) {
  const letters = Array.from(text); // spans count code points, as Python does; strings here count UTF-16 units
  const pieces = [];
  let end = 0;
  for (const word of marked) {
    pieces.push(letters.slice(end, word.start).join(""));
    pieces.push(markedWord(letters.slice(word.start, word.end).join(""), word.stars, strongest));
    end = word.end;
  }
  return [...pieces, letters.slice(end).join("")];
}

function markedWord(text, value, strongest) {
  const weight = strongest ? Math.abs(value) / strongest : 0;
  if (weight < FAINTEST) return text;
  return element(
    "span",
    {
      class: value > 0 ? "word raises" : "word lowers",
      "data-sign": weight >= STRONG ? (value > 0 ? "+" : "\u2212") : undefined,
      title: `${signed(value, 4)} stars`,
      vars: { "--weight": weight.toFixed(3) },
    },
    text,
  );
}

// The same in words, for whoever cannot see the marks.
function summary(marked, strongest) {
  const strong = marked.filter((word) => LETTER.test(word.text) && Math.abs(word.stars) >= FAINTEST * strongest);
  strong.sort((one, other) => Math.abs(other.stars) - Math.abs(one.stars));
  const named = (sign) => {
    const texts = strong.filter((word) => Math.sign(word.stars) === sign).map((word) => word.text.toLowerCase());
    return [...new Set(texts)].slice(0, NAMED_WORDS).join(", ");
  };
  const [raising, lowering] = [named(1), named(-1)];
  if (!raising && !lowering) return [];
  const parts = [raising && `Raise the rating: ${raising}.`, lowering && `Lower it: ${lowering}.`].filter(Boolean);
  return [element("p", { class: "note" }, parts.join(" "))];
}
