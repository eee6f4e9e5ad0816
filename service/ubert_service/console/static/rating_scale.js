// A rating and its interval, drawn on the scale and said in words.

import { element } from "./elements.js";
import { duration, many, percent, stars } from "./format.js";
import { starChoices, starScale } from "./star_scale.js";

export function intervalText({ interval }) {
  if (!interval) return "This bundle was exported without intervals.";
  return `In ${percent(interval.coverage)} of cases the rating given is between ${stars(interval.low)} and ${stars(interval.high)}.`;
}

export function ratingScale({ rating, interval }, { before = null, small = false } = {}) {
  const scale = starScale();
  const at = (value) => percent((value - scale.lowest) / (scale.highest - scale.lowest), 2);
  const low = interval?.low ?? rating;
  const high = interval?.high ?? rating;
  const ticks = small ? [] : starChoices();
  const label = `${stars(rating)} stars on a scale from ${scale.lowest} to ${scale.highest}` +
    (interval ? `, interval ${stars(low)} to ${stars(high)}` : "");
  return element(
    "div",
    { class: small ? "scale small" : "scale", role: "img", "aria-label": label },
    element("div", { class: "track" }),
    element("div", { class: "interval", vars: { "--from": at(low), "--to": at(high) } }),
    before === null ? null : element("div", { class: "point before", vars: { "--at": at(before) } }),
    element("div", { class: "point", vars: { "--at": at(rating) } }),
    ...ticks.map((tick) => element("span", { class: "tick", vars: { "--at": at(tick) } }, String(tick))),
  );
}

const BASES = {
  full: { short: "both sides’ reviews", sentence: "The network read reviews of both sides" },
  one_side: { short: "one side’s ratings", sentence: "Only one side has ratings to go by" },
  bias: { short: "both sides’ ratings", sentence: "No reviews to read on one side, so it comes from both sides’ ratings, and from what the item’s texts say beyond them" },
  mean: { short: "the mean of all", sentence: "Nothing is known of either side, so it is the mean of all ratings" },
};

export const shortGrounds = ({ basis }) => BASES[basis]?.short ?? basis;

// Empty unless the service answers from what it holds, because its store is away.
export const staleness = ({ stale_s: seconds }) => (seconds ? `The store is away: this is as of ${duration(seconds)} ago.` : "");

export function grounds(prediction) {
  const parts = [BASES[prediction.basis]?.sentence ?? `Basis: ${prediction.basis}`];
  if (prediction.basis === "full") parts.push(`: ${prediction.user_reviews} of the user, ${prediction.item_reviews} of the item`);
  parts.push(".");
  if (!prediction.user_known) parts.push(" This user was not seen in training.");
  if (!prediction.item_known) parts.push(" This item was not seen in training.");
  if (prediction.missing_states) parts.push(` The store has lost the states of ${many(prediction.missing_states, "review")}.`);
  if (prediction.stale_s) parts.push(` ${staleness(prediction)}`);
  return parts.join("");
}
