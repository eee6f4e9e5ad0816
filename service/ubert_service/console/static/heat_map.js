// Figure 5: which tokens of two reviews attend to each other. A grid that the arrow keys walk through.

import { element } from "./elements.js";
import { percent } from "./format.js";
import { LETTER, tokenLabels } from "./words.js";

const STRONGEST_PAIRS = 5;
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const DIRECTIONS = [
  ["user", "Each passage of the user's review looks at the item's (rows)"],
  ["item", "Each passage of the item's review looks at the user's (columns)"],
];

export function heatMap({ heat_map: map, reviews }) {
  const side = (name, id) => reviews.find((review) => review.side === name && review.review_id === id);
  const user = side("user", map.user_review_id);
  const item = side("item", map.item_review_id);
  const labels = { rows: tokenLabels(user, map.user_attention.length), columns: tokenLabels(item, map.item_attention.length) };
  const weights = { user: map.user_attention, item: transposed(map.item_attention) }; // rows are the user's in both
  const body = element("div");
  const show = (direction) => body.replaceChildren(...drawn(weights[direction], labels, direction));
  show("user");
  return element(
    "div",
    {},
    element("p", { class: "note" }, `${user.item === null ? "The text brought along" : `The user's review on ${user.item}`} (rows) and the review by ${item.user} (columns): the pair with the strongest mutual attention.`),
    element(
      "fieldset",
      { class: "choice", on: { change: (event) => show(event.target.value) } },
      element("legend", {}, "Direction"),
      ...DIRECTIONS.map(([value, title]) =>
        element("label", {}, element("input", { type: "radio", name: "direction", value, checked: value === "user" }), ` ${title}`)),
    ),
    body,
  );
}

const transposed = (rows) => rows[0].map((_, column) => rows.map((row) => row[column]));

function drawn(weights, labels, direction) {
  const readout = element("p", { class: "readout", "aria-hidden": "true" }, "Point at a cell, or walk with the arrow keys.");
  return [strongestPairs(weights, labels, direction), grid(weights, labels, readout), readout];
}

// Of words alone: punctuation and the tokens that stand for no text often draw attention, and tell a reader nothing.
function strongestPairs(weights, labels, direction) {
  const pairs = weights.flatMap((row, r) => row.map((weight, c) => ({ weight, row: labels.rows[r], column: labels.columns[c] })));
  const ofWords = pairs.filter(({ row, column }) => isWord(row) && isWord(column)).sort((one, other) => other.weight - one.weight);
  const named = ofWords.slice(0, STRONGEST_PAIRS).map(({ weight, row, column }) => {
    const [from, to] = direction === "user" ? [row, column] : [column, row];
    return `${from} → ${to} ${percent(weight)}`;
  });
  return element("p", {}, named.length ? `Strongest between passages: ${named.join(" · ")}` : "No passages meet.");
}

const isWord = (label) => LETTER.test(label) && !label.startsWith("[");

function grid(weights, labels, readout) {
  const strongest = Math.max(...weights.flat());
  const cells = weights.map((row, r) =>
    row.map((weight, c) =>
      element("td", {
        role: "gridcell",
        tabindex: r === 0 && c === 0 ? 0 : -1,
        "aria-label": `${labels.rows[r]}, ${labels.columns[c]}: ${percent(weight, 1)}`,
        "data-row": r,
        "data-column": c,
        vars: { "--weight": Math.sqrt(weight / strongest).toFixed(3) },
      })),
  );
  const tell = (cell) => { readout.textContent = cell.getAttribute("aria-label"); };
  const walk = (event) => {
    const step = ARROWS[event.key];
    const cell = event.target.closest("td");
    if (!step || !cell) return;
    event.preventDefault();
    const next = cells[Number(cell.dataset.row) + step[0]]?.[Number(cell.dataset.column) + step[1]];
    if (!next) return;
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
  return element(
    "div",
    { class: "scrolled heat" },
    element(
      "table",
      {
        role: "grid",
        "aria-label": "Attention between the tokens of two reviews",
        on: {
          keydown: walk,
          focusin: (event) => event.target.closest("td") && tell(event.target),
          mouseover: (event) => event.target.closest("td") && tell(event.target),
        },
      },
      element(
        "thead",
        {},
        element("tr", { role: "row" }, element("td", { role: "presentation" }),
          ...labels.columns.map((label) => element("th", { role: "columnheader", scope: "col" }, element("span", {}, label)))),
      ),
      element("tbody", {}, ...cells.map((row, r) => element("tr", { role: "row" }, element("th", { role: "rowheader", scope: "row" }, labels.rows[r]), ...row))),
    ),
  );
}
