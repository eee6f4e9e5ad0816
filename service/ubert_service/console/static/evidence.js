// Both sides' reviews, each with its effect, and its words marked by what they contribute.

import { element } from "./elements.js";
import { count, day, many, named as nameOf, signed } from "./format.js";
import { isPassage, LETTER, quoted, words } from "./words.js";

const LONGEST = 3000; // characters: more than an encoder reads, unless it takes them for one endless word
const SHOWN = 3; // of each side; the others are one key press away
const FAINTEST = 0.2; // in weights, see below: less is left unmarked
const FULL_MARK_STARS = 0.02; // at least, or words that all but do nothing would be marked like any others
const STRONG = 0.6; // from here on a word also carries its sign
const NAMED_WORDS = 3;
const PUNCTUATION = /^[\s\p{P}]+|[\s\p{P}]+$/gu; // around what is named

const UNREAD = {
  user: "The network did not read it; only its rating counts.",
  item: "The network did not read it; its rating counts, and what its words say beyond that.",
};

export function evidenceNote({ reviews, user_unlisted: ofUser, item_unlisted: ofItem }) {
  if (!reviews.length) return ["No review of either side was read."];
  const unlike = reviews.some(wasRead) && !reviews.every(wasRead);
  const order = unlike ? ": first those that the network read, then those that count without it; strongest first" : reviews.length > 1 ? ", strongest first" : "";
  const unlisted = ofUser + ofItem;
  const shown = unlisted ? `${count(reviews.length)} of the ${many(reviews.length + unlisted, "review")} that count` : many(reviews.length, "review");
  const note = `${shown}${order}. A review’s effect is the rating minus what it would be without its text and its stars, computed by rating again.`;
  const strongest = strongestWord(reviews);
  if (!strongest) return [note];
  if (weightOf(strongest, strongest) < FAINTEST) return [`${note} Texts are shown as far as they are read. No word contributes more than ${strongest.toFixed(4)} stars, so none is marked.`];
  return [`${note} Texts are shown as far as they are read. Marked words `, sample("raise"), " or ", sample("lower"), ` “Where their reviews meet”, by ${strongest.toFixed(4)} stars at most; what a review’s own stars do is not marked.`];
}

const sample = (verb) => element("span", { class: `word ${verb}s`, vars: { "--weight": STRONG } }, verb);

export function evidenceSides({ user, item, reviews, user_unlisted: ofUser, item_unlisted: ofItem, texts_unavailable: unavailable }) {
  const shown = { strongest: strongestWord(reviews), instead: unavailable ? "The store, which may have its text, is away." : "The store keeps no texts." };
  return [["user", `By ${nameOf(user)}`, "This user has no review of another item.", ofUser], ["item", `About ${nameOf(item)}`, "This item has no review by another user.", ofItem]].map(
    ([side, title, none, unlisted]) => {
      const mine = reviews.filter((review) => review.side === side).sort(readFirstThenStrongest);
      return element(
        "section",
        { "aria-label": title },
        element("h3", {}, title),
        mine.length ? cards(mine.slice(0, SHOWN), shown) : element("p", { class: "note" }, none),
        mine.length > SHOWN ? theRest(mine.slice(SHOWN), shown) : null,
        unlisted ? element("p", { class: "note" }, `Not listed: ${many(unlisted, "older review")}, which the network did not read but which count.`) : null,
      );
    },
  );
}

const strongestWord = (reviews) => Math.max(...reviews.flatMap(words).map((word) => Math.abs(word.stars)), 0);
const wasRead = (review) => review.token_contributions.length > 0;
const readFirstThenStrongest = (one, other) => wasRead(other) - wasRead(one) || Math.abs(other.effect) - Math.abs(one.effect);

const cards = (reviews, shown) =>
  element("ol", { class: "reviews" }, ...reviews.map((review) => element("li", {}, card(review, shown))));

const theRest = (reviews, shown) =>
  element("details", {}, element("summary", {}, `${many(reviews.length, "further review")}`), cards(reviews, shown));

function card(review, shown) {
  const about = review.item === null ? "sent along" : `on ${nameOf(review.item)}`;
  const counterpart = review.side === "user" ? about : `by ${nameOf(review.user)}`;
  return element(
    "article",
    { class: "review", "aria-label": `Review ${counterpart}` },
    element(
      "header",
      {},
      review.rating === null
        ? element("span", { class: "given" }, "no stars")
        : element("span", { class: "given", role: "img", "aria-label": `rated ${review.rating} stars` }, `★ ${review.rating}`),
      element("span", { class: "note" }, `${counterpart}, ${day(review.timestamp)}`),
      effect(review.effect),
    ),
    ...body(review, shown),
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

function body(review, { strongest, instead }) {
  const unread = wasRead(review) ? [] : [element("p", { class: "note" }, UNREAD[review.tokens ? review.side : "user"])];
  if (review.text === null) return wasRead(review) ? [element("p", { class: "note" }, instead)] : unread;
  const marked = words(review);
  const letters = Array.from(review.text); // spans count code points, as Python does; strings here count UTF-16 units
  const left = letters.splice(LONGEST).length;
  return [
    element("p", { class: "text", dir: "auto" }, ...markedText(letters, marked.filter(({ start }) => start < LONGEST), strongest)),
    left ? element("p", { class: "note" }, `${count(left)} further characters are not shown.`) : null,
    ...summary(marked, strongest),
    ...unread,
  ];
}

function markedText(letters, marked, strongest) {
  const pieces = [];
  let end = 0;
  for (const word of marked) {
    pieces.push(letters.slice(end, word.start).join(""));
    pieces.push(markedWord(letters.slice(word.start, word.end).join(""), word.stars, strongest));
    end = word.end;
  }
  return [...pieces, letters.slice(end).join("")];
}

// The square root, or the strongest word of the answer would leave all others blank.
const weightOf = (value, strongest) => Math.sqrt(Math.abs(value) / Math.max(strongest, FULL_MARK_STARS));

function markedWord(text, value, strongest) {
  const weight = weightOf(value, strongest);
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

const nameOfWord = (text) => (isPassage(text) ? quoted(text) : text.toLowerCase());

// The same in words, for whoever cannot see the marks. Of passages it would be most of the text once more: read out only.
function summary(marked, strongest) {
  const strong = marked.filter((word) => LETTER.test(word.text) && weightOf(word.stars, strongest) >= FAINTEST);
  strong.sort((one, other) => Math.abs(other.stars) - Math.abs(one.stars));
  const named = (sign) => {
    const stars = new Map();
    for (const word of strong.filter((one) => Math.sign(one.stars) === sign)) {
      const name = nameOfWord(word.text.replace(PUNCTUATION, ""));
      if (!stars.has(name)) stars.set(name, word.stars); // of the strongest, where a word stands several times
    }
    return [...stars].slice(0, NAMED_WORDS).map(([name, value]) => `${name} (${signed(value, 4)} stars)`).join(", ");
  };
  const [raising, lowering] = [named(1), named(-1)];
  if (!raising && !lowering) return [];
  const parts = [raising && `raised by ${raising}`, lowering && `lowered by ${lowering}`].filter(Boolean);
  return [element("p", { class: strong.some((word) => isPassage(word.text)) ? "unseen" : "note" }, `Where the reviews meet: ${parts.join("; ")}.`)];
}
