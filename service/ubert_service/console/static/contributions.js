// What the rating is made of: what all ratings have in common, then each part's share as a bar from zero, then the sum.

import { element, table } from "./elements.js";
import { percent, signed, stars } from "./format.js";

const PARTS = [
  ["user_bias", "This user’s ratings"],
  ["item_bias", "This item’s reviews"],
  ["identity_and_summary", "Who they are, what they wrote"],
  ["matching", "Where their reviews meet"],
  ["clipped", "Cut to the scale"],
];
const DIGITS = 3; // in all rows, so that they add up
const NARROWEST_STARS = 0.02; // or the rounding of an all but empty answer would fill the chart

export function contributionTable({ contributions, rating }) {
  const parts = PARTS.filter(([name]) => name !== "clipped" || contributions.clipped !== 0);
  const widest = Math.max(NARROWEST_STARS, ...parts.map(([name]) => Math.abs(contributions[name])));
  return table({
    caption: `Contributions in stars; a full bar is ${stars(widest)}`,
    className: "bars",
    head: [{ text: "Part" }, { text: "Share" }, { text: "Stars", class: "figure" }],
    rows: [
      plainRow("Where all ratings start", exact(contributions.mean)),
      ...parts.map(([name, title]) => barRow(title, contributions[name], widest)),
      plainRow("Rating", exact(rating), "sum"),
    ],
  });
}

const exact = (value) => value.toFixed(DIGITS);

const plainRow = (title, figure, className) =>
  element("tr", { class: className }, element("th", { scope: "row" }, title), element("td"), element("td", { class: "figure" }, figure));

const barRow = (title, value, widest) =>
  element(
    "tr",
    {},
    element("th", { scope: "row" }, title),
    element("td", {}, divergingBar(value, widest)),
    element("td", { class: "figure" }, signed(value, DIGITS)),
  );

const divergingBar = (value, widest) =>
  element(
    "div",
    { class: "diverging", "aria-hidden": "true" },
    element("div", { class: value < 0 ? "bar lowers" : "bar raises", vars: { "--size": percent(Math.abs(value) / widest / 2, 2) } }),
  );
