// What runs, how accurate it is, and how it has been doing since it started.

import { announce, byId, element, showProblem, table } from "./elements.js";
import { atMost, histograms, samples } from "./exposition.js";
import { count, duration, megabytes, percent } from "./format.js";
import { degraded, ready } from "./readiness.js";
import * as service from "./service.js";

const FOLLOW_MS = 5000;
const OWN_FILES = /^\/(console\/.*)?$/;
const FIRST_SHOWN = "/predict";

export class StatusView {
  constructor() {
    byId("status-refresh").addEventListener("click", async () => {
      await this.#show();
      announce("Status refreshed");
    });
    byId("status-follow").addEventListener("change", (event) => this.#follow(event.target.checked));
  }

  enter() { this.#show(); }

  leave() {
    byId("status-follow").checked = false;
    this.#follow(false);
  }

  #follow(on) {
    clearInterval(this.timer);
    if (on) this.timer = setInterval(() => this.#show(), FOLLOW_MS);
  }

  async #show() {
    try {
      const [state, version, about, text] = await Promise.all([readiness(), service.version(), service.about(), service.metrics()]);
      const measured = samples(text);
      showProblem(byId("status-problem"), null);
      byId("status-body").replaceChildren(
        section("Readiness", state),
        section("Bundle", bundle(version, about)),
        section("Accuracy on the test part", accuracy(about.accuracy)),
        section("Latency by route", this.#latency(measured)),
        section("State store", store(measured)),
        section("Predictions", predictions(measured)),
        section("Resident memory", residents(measured)),
      );
    } catch (error) {
      showProblem(byId("status-problem"), error);
    }
  }

  #latency(measured) {
    const routes = histograms(measured, "ubert_request_seconds", "route").filter(({ key }) => !OWN_FILES.test(key));
    routes.sort((one, other) => other.count - one.count);
    if (!routes.length) return element("p", { class: "note" }, "No request so far.");
    const measuredRoutes = routes.map((route) => route.key);
    this.route = [this.route, FIRST_SHOWN, measuredRoutes[0]].find((route) => measuredRoutes.includes(route));
    const chart = element("div");
    const draw = () => chart.replaceChildren(buckets(routes.find((route) => route.key === this.route)));
    const choice = element(
      "select",
      { id: "status-route", on: { change: (event) => { this.route = event.target.value; draw(); } } },
      ...routes.map((route) => element("option", { value: route.key, selected: route.key === this.route }, route.key)),
    );
    draw();
    return element("div", {}, summaryTable("Requests since the start, by route", "Route", routes),
      element("p", { class: "toolbar" }, element("label", { for: choice.id }, "Distribution of"), choice), chart);
  }
}

const section = (title, ...content) => element("section", { "aria-label": title }, element("h2", {}, title), ...content);

async function readiness() {
  try {
    const { status, detail } = await service.readiness();
    return element("p", {}, status === "degraded" ? degraded(detail) : ready("Ready: device, store and states are in place."));
  } catch (problem) {
    if (problem.status !== 503) throw problem;
    return element("ul", { class: "obstacles" }, ...problem.reasons.map(({ check, found, remedy }) =>
      element("li", {}, element("span", { class: "sign bad", "aria-hidden": "true" }, "▲"), element("strong", {}, ` ${check}: `), `${found}. `, element("span", { class: "note" }, remedy))));
  }
}

function bundle(version, about) {
  const facts = [
    ["Bundle", version.bundle], ["u-bert", version.version], ["Device", version.device], ["State store", about.store], ["Codec", version.codec],
    ["States", version.states], ["Encoder", version.encoder.slice(0, 16)], ["Users", count(about.users)], ["Items", count(about.items)],
    ["Read of each side", `${about.max_reviews} reviews, ${about.max_tokens} tokens`], ["Scale", `${about.scale.lowest} to ${about.scale.highest} stars`],
  ];
  return element("dl", { class: "facts" }, ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function accuracy(models) {
  if (!models.length) return element("p", { class: "note" }, "The bundle was exported without an evaluation.");
  const estimate = ({ value, low, high }) => [value.toFixed(4), element("span", { class: "note" }, ` ${low.toFixed(3)}–${high.toFixed(3)}`)];
  return table({
    caption: `Errors over ${count(models[0].pairs)} test pairs with 95% intervals, best first`,
    head: [{ text: "Model" }, ...["MSE", "RMSE", "MAE"].map((text) => ({ text, class: "figure" }))],
    rows: models.map((model) =>
      element("tr", { class: model.model === "U-BERT" ? "sum" : undefined }, element("th", { scope: "row" }, model.model),
        ...[model.mse, model.rmse, model.mae].map((one) => element("td", { class: "figure" }, ...estimate(one))))),
  });
}

function store(measured) {
  const operations = histograms(measured, "ubert_store_seconds", "operation").sort((one, other) => other.sum - one.sum);
  if (!operations.length) return element("p", { class: "note" }, "Not asked so far.");
  const failures = sum(measured.filter((sample) => sample.name === "ubert_store_failures_total"));
  return element("div", {}, element("p", {}, failures ? `${count(failures)} operations have failed.` : "No operation has failed."),
    summaryTable("Operations since the start", "Operation", operations));
}

function predictions(measured) {
  const by = measured.filter((sample) => sample.name === "ubert_predictions_total" && sample.value > 0);
  const lost = measured.find((sample) => sample.name === "ubert_missing_states_total")?.value ?? 0;
  if (!by.length) return element("p", { class: "note" }, "None so far.");
  const total = sum(by);
  return element(
    "div",
    {},
    table({
      caption: "Pairs rated, by what the rating was made from",
      className: "bars",
      head: [{ text: "Basis" }, { text: "Share", class: "bar-head" }, { text: "Pairs", class: "figure" }],
      rows: by.map((sample) => countRow(sample.labels.basis, sample.value, total)),
    }),
    element("p", { class: "note" }, lost ? `${count(lost)} states that should have been read were lost.` : "No state was missing."),
  );
}

function residents(measured) {
  const asked = measured.filter((sample) => sample.name === "ubert_residents_asked_total");
  if (!asked.length) return element("p", { class: "note" }, "Nothing was asked for so far.");
  const gauge = (name) => measured.find((sample) => sample.name === name)?.value ?? 0;
  const stale = gauge("ubert_residents_stale_seconds");
  return element(
    "div",
    {},
    element("p", {}, `${megabytes(gauge("ubert_residents_bytes"))} held in this process. `,
      stale ? `The store is away: nothing is known of changes since ${duration(stale)}.` : "True to the store."),
    table({
      caption: "Review lists and states that were wanted, by whether the process held them",
      className: "bars",
      head: [{ text: "Wanted" }, { text: "Share", class: "bar-head" }, { text: "Times", class: "figure" }],
      rows: asked.map(({ labels, value }) =>
        countRow(`${labels.kind}, ${labels.outcome}`, value, sum(asked.filter((other) => other.labels.kind === labels.kind)))),
    }),
  );
}

const sum = (measured) => measured.reduce((total, sample) => total + sample.value, 0);

const summaryTable = (caption, first, measured) =>
  table({
    caption,
    head: [{ text: first }, ...["Count", "Mean", "Half within", "99% within"].map((text) => ({ text, class: "figure" }))],
    rows: measured.map((one) =>
      element("tr", {}, element("th", { scope: "row" }, one.key),
        ...[count(one.count), duration(one.sum / one.count), duration(atMost(one, 0.5)), duration(atMost(one, 0.99))].map((text) => element("td", { class: "figure" }, text)))),
  });

function buckets(histogram) {
  const last = histogram.buckets.findLastIndex((bucket) => bucket.count > 0);
  const first = histogram.buckets.findIndex((bucket) => bucket.count > 0);
  const shown = histogram.buckets.slice(Math.max(first - 1, 0), last + 2);
  const most = Math.max(...shown.map((bucket) => bucket.count));
  return table({
    caption: `How long ${histogram.key} took`,
    className: "bars",
    head: [{ text: "Up to" }, { text: "Share", class: "bar-head" }, { text: "Requests", class: "figure" }],
    rows: shown.map((bucket) => countRow(duration(bucket.upTo), bucket.count, most)),
  });
}

const countRow = (title, value, most) =>
  element("tr", {}, element("th", { scope: "row" }, title),
    element("td", {}, element("div", { class: "counted", "aria-hidden": "true" }, element("div", { class: "bar raises", vars: { "--size": percent(value / most, 2) } }))),
    element("td", { class: "figure" }, count(value)));
