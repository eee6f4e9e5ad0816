// Figure 5: which tokens of two reviews attend to each other. A grid that the arrow keys walk through.

import { element } from "./elements.js";
import { count, named, percent } from "./format.js";
import { isPassage, LETTER, MARKS, quoted, tokenLabels } from "./words.js";

const STRONGEST_PAIRS = 5;
const LEAST_NAMED = 0.001; // of a row's attention: less would be shown as nothing
const LARGEST = 100; // rows and columns: a grid that no window holds tells nothing, and costs seconds
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const directions = (unit) => [
  ["user", `Each ${unit} of the user’s review looks at the item’s (rows)`],
  ["item", `Each ${unit} of the item’s review looks at the user’s (columns)`],
];

export function heatMap({ heat_map: map, reviews }) {
  const side = (name, id) => reviews.find((review) => review.side === name && review.review_id === id);
  const user = side("user", map.user_review_id);
  const item = side("item", map.item_review_id);
  const rows = { user: map.user_attention, item: transposed(map.item_attention) }; // rows are the user's in both
  const kept = strongestPart(rows);
  const only = (labels, indices) => indices.map((index) => labels[index]);
  const labels = {
    rows: only(tokenLabels(user, map.user_attention.length), kept.rows),
    columns: only(tokenLabels(item, map.item_attention.length), kept.columns),
  };
  const unit = unitOf([user, item], [...labels.rows, ...labels.columns]);
  const part = (weights) => kept.rows.map((row) => kept.columns.map((column) => weights[row][column]));
  const weights = { user: part(rows.user), item: part(rows.item) };
  const body = element("div");
  const show = (direction) => body.replaceChildren(...drawn(weights[direction], labels, direction, unit));
  show("user");
  return element(
    "div",
    {},
    element("p", { class: "note" }, `${user.item === null ? "The text sent along" : `The user’s review on ${named(user.item)}`} (rows) and the review by ${named(item.user)} (columns): the pair with the strongest mutual attention.${extent(map, kept)} Percentages are of all the attention that a ${unit} pays to the other side’s reviews.${marksIn([...labels.rows, ...labels.columns])}`),
    element(
      "fieldset",
      { class: "choice", on: { change: (event) => show(event.target.value) } },
      element("legend", {}, "Direction"),
      ...directions(unit).map(([value, title]) =>
        element("label", {}, element("input", { type: "radio", name: "direction", value, checked: value === "user" }), ` ${title}`)),
    ),
    body,
  );
}

const transposed = (rows) => rows[0].map((_, column) => rows.map((row) => row[column]));

// What a row of states stands for: several words where states are pooled, which without a text cannot be told.
const unitOf = (reviews, labels) => {
  if (labels.some(isPassage)) return "passage";
  return reviews.some(({ text }) => text === null) ? "part" : "word";
};

// Where either review is long: of each the rows that attend the most to a single one, or are attended to.
function strongestPart({ user, item }) {
  const most = (rows) => rows.map((row) => largest(row));
  const columns = [transposed(user), transposed(item)].map(most);
  return { rows: topmost(both(most(user), most(item))), columns: topmost(both(...columns)) };
}

const largest = (row) => row.reduce((one, other) => Math.max(one, other), 0);
const both = (one, other) => one.map((value, index) => Math.max(value, other[index]));
const topmost = (values) =>
  values.map((value, index) => ({ value, index })).sort((one, other) => other.value - one.value)
    .slice(0, LARGEST).map(({ index }) => index).sort((one, other) => one - other);

const extent = ({ user_attention: { length: rows }, item_attention: { length: columns } }, kept) =>
  kept.rows.length < rows || kept.columns.length < columns
    ? ` Shown are the ${count(kept.rows.length)} of ${count(rows)} rows and ${count(kept.columns.length)} of ${count(columns)} columns where it is strongest.`
    : "";

const marksIn = (labels) => {
  const [begins, ends] = MARKS.map((mark) => labels.includes(mark));
  if (begins && ends) return ` ${MARKS.join(" and ")} mark where a review begins and ends.`;
  if (begins) return ` ${MARKS[0]} marks where a review begins.`;
  return ends ? ` ${MARKS[1]} marks where a review ends.` : "";
};

function drawn(weights, labels, direction, unit) {
  const strongest = largest(weights.map(largest));
  const readout = element("p", { class: "readout", "aria-hidden": "true" }, "Point at a cell, or move with the arrow keys.");
  return [
    strongestPairs(weights, labels, direction, unit),
    element("p", { class: "note legend" }, "none ", element("span", { class: "ramp", "aria-hidden": "true" }), ` ${percent(strongest, 1)}, the strongest cell`),
    grid(weights, labels, strongest, readout),
    readout,
  ];
}

// Of words alone: punctuation and the tokens that stand for no text often draw attention, and tell a reader nothing.
function strongestPairs(weights, labels, direction, unit) {
  const pairs = weights.flatMap((row, r) => row.map((weight, c) => ({ weight, row: labels.rows[r], column: labels.columns[c] })));
  const ofWords = pairs.filter(({ weight, row, column }) => weight >= LEAST_NAMED && isWord(row) && isWord(column)).sort((one, other) => other.weight - one.weight);
  const pairsNamed = ofWords.slice(0, STRONGEST_PAIRS).map(({ weight, row, column }) => {
    const [from, to] = direction === "user" ? [row, column] : [column, row];
    return element("li", {}, element("q", { dir: "auto" }, from), " → ", element("q", { dir: "auto" }, to), ` ${percent(weight, 1)}`);
  });
  if (!pairsNamed.length) return element("p", {}, `No ${unit}s meet.`);
  return element("div", { class: "strongest" }, element("p", {}, `Strongest between ${unit}s:`), element("ol", {}, ...pairsNamed));
}

const isWord = (label) => LETTER.test(label) && !MARKS.includes(label);

function grid(weights, labels, strongest, readout) {
  const cells = weights.map((row, r) =>
    row.map((weight, c) =>
      element("td", {
        role: "gridcell",
        tabindex: r === 0 && c === 0 ? 0 : -1,
        "aria-label": `${quoted(labels.rows[r])}, ${quoted(labels.columns[c])}: ${percent(weight, 1)}`,
        "data-row": r,
        "data-column": c,
        vars: { "--weight": Math.sqrt(weight / strongest).toFixed(3) },
      })),
  );
  const tell = (cell) => { readout.textContent = cell.getAttribute("aria-label"); };
  let entrance = cells[0][0]; // the one cell that the tab key leads to: where one has been last
  const enter = (cell) => {
    entrance.tabIndex = -1;
    entrance = cell;
    entrance.tabIndex = 0;
  };
  const walk = (event) => {
    const { row, column } = event.target.dataset;
    const next = goal(cells, Number(row), Number(column), event);
    if (next === null) return;
    event.preventDefault();
    next?.focus();
  };
  return element(
    "div",
    { class: [...labels.rows, ...labels.columns].some(isPassage) ? "scrolled heat passages" : "scrolled heat" },
    element(
      "table",
      {
        role: "grid",
        "aria-label": "Attention between two reviews",
        on: {
          keydown: walk,
          focusin: ({ target }) => {
            if (target.role !== "gridcell") return;
            enter(target);
            tell(target);
          },
          mouseover: ({ target }) => target.role === "gridcell" && tell(target),
        },
      },
      element(
        "thead",
        {},
        element("tr", { role: "row" }, element("td", { role: "presentation" }),
          ...labels.columns.map((label) => element("th", { role: "columnheader", scope: "col", title: label }, element("span", { dir: "auto" }, label)))),
      ),
      element("tbody", {}, ...cells.map((row, r) => element("tr", { role: "row" }, element("th", { role: "rowheader", scope: "row", title: labels.rows[r] }, element("span", { dir: "auto" }, labels.rows[r])), ...row))),
    ),
  );
}

// Where a key leads from a cell: null for one that leads nowhere, undefined beyond the edge.
function goal(cells, row, column, { key, ctrlKey, altKey, metaKey }) {
  if (altKey || metaKey) return null;
  if (key in ARROWS) return ctrlKey ? null : cells[row + ARROWS[key][0]]?.[column + ARROWS[key][1]];
  if (key === "Home") return ctrlKey ? cells[0][0] : cells[row][0];
  if (key === "End") return (ctrlKey ? cells.at(-1) : cells[row]).at(-1);
  return null;
}
