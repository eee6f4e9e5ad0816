// Histograms as tables: one row each, or one row for each bucket.

import { element, table } from "./elements.js";
import { atMost } from "./exposition.js";
import { count, duration, percent } from "./format.js";

export const summaryTable = (caption, first, measured) =>
  table({
    caption,
    head: [{ text: first }, ...["Count", "Mean", "Half within", "99% within"].map((text) => ({ text, class: "figure" }))],
    rows: measured.map((one) =>
      element("tr", {}, element("th", { scope: "row" }, one.key),
        ...[count(one.count), duration(one.sum / one.count), duration(atMost(one, 0.5)), duration(atMost(one, 0.99))].map((text) => element("td", { class: "figure" }, text)))),
  });

export function bucketTable(histogram) {
  const last = histogram.buckets.findLastIndex((bucket) => bucket.count > 0);
  const first = histogram.buckets.findIndex((bucket) => bucket.count > 0);
  const shown = histogram.buckets.slice(Math.max(first - 1, 0), last + 2);
  return table({
    caption: `How long ${histogram.key} took`,
    className: "bars",
    head: [{ text: "Up to" }, { text: "Share" }, { text: "Requests", class: "figure" }],
    rows: shown.map((bucket) => countRow(duration(bucket.upTo), bucket.count, histogram.count)),
  });
}

export const countRow = (title, value, all) =>
  element("tr", {}, element("th", { scope: "row" }, title),
    element("td", {}, element("div", { class: "counted", "aria-hidden": "true" }, element("div", { class: "bar raises", vars: { "--size": percent(value / all, 2) } }))),
    element("td", { class: "figure" }, count(value)));
