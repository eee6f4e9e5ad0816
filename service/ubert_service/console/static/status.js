// What runs, how accurate it is, and how it has been doing since it started.

import { countRow, summaryTable } from "./distributions.js";
import { announce, byId, element, renew, setBusy, showProblem, table } from "./elements.js";
import { histograms, samples } from "./exposition.js";
import { count, duration, megabytes, timeOfDay } from "./format.js";
import { Latency } from "./latency.js";
import { shortGrounds } from "./rating_scale.js";
import { degraded, notReady, PATIENCE_MS, ready } from "./readiness.js";
import * as service from "./service.js";

const FOLLOW_MS = 5000;
const SECTIONS = ["Readiness", "Bundle", "Accuracy on the test part", "Latency by route", "State store", "Predictions", "Resident memory"];

export class StatusView {
  constructor() {
    byId("status-refresh").addEventListener("click", async () => {
      if (await this.#show()) announce("Status refreshed");
    });
    byId("status-follow").addEventListener("change", (event) => this.#follow(event.target.checked));
    this.latency = new Latency();
    this.places = SECTIONS.map(() => element("div"));
  }

  enter() { this.#show(); }

  refresh() { this.#show(); }

  leave() {
    byId("status-follow").checked = false;
    this.#follow(false);
  }

  #follow(on) {
    clearInterval(this.timer);
    if (on) this.timer = setInterval(() => { if (!this.asking && !document.hidden) this.#show(); }, FOLLOW_MS);
  }

  // Whether the figures are those of now.
  async #show() {
    const asking = (this.asking = {}); // an answer that another question has overtaken is not shown
    setBusy(byId("status"), true);
    try {
      const signal = AbortSignal.timeout(PATIENCE_MS);
      const answers = await Promise.all([readiness, service.version, service.about, service.metrics].map((ask) => ask(signal)));
      if (asking !== this.asking) return false;
      this.#fill(...answers);
      return true;
    } catch (error) {
      if (asking === this.asking) this.#fail(error);
      return false;
    } finally {
      if (asking === this.asking) {
        this.asking = null;
        setBusy(byId("status"), false);
      }
    }
  }

  #fill(state, version, about, text) {
    const measured = samples(text);
    showProblem(byId("status-problem"), null);
    this.latency.show(measured);
    const contents = [state, bundle(version, about), accuracy(about.accuracy), this.latency.place, store(measured), predictions(measured), residents(measured)];
    contents.forEach((content, index) => { if (content !== this.places[index].firstChild) renew(this.places[index], content); });
    this.answered = new Date();
    const body = byId("status-body");
    if (!body.firstChild) body.append(...SECTIONS.map((title, index) => section(title, this.places[index])));
  }

  // The figures stay, for they may be what somebody is looking at; that they are old is said where it matters.
  #fail(error) {
    showProblem(byId("status-problem"), error);
    if (this.answered) renew(this.places[0], element("p", {}, notReady(`Unknown. What follows is as of ${timeOfDay(this.answered)}.`)));
  }
}

const section = (title, ...content) => element("section", { "aria-label": title }, element("h2", {}, title), ...content);

async function readiness(signal) {
  try {
    const { status, detail } = await service.readiness(signal);
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
    ["Read on each side", `${about.max_reviews} reviews, ${about.max_tokens} rows of states`], ["Scale", `${about.scale.lowest} to ${about.scale.highest} stars`],
  ];
  return element("dl", { class: "facts" }, ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function accuracy(models) {
  if (!models.length) return element("p", { class: "note" }, "The bundle was exported without an evaluation.");
  const estimate = ({ value, low, high }) => [value.toFixed(4), element("span", { class: "note" }, ` ${low.toFixed(3)}–${high.toFixed(3)}`)];
  return table({
    caption: `Errors over ${count(models[0].pairs)} test pairs with 95% intervals, U-BERT’s and then the best first`,
    head: [{ text: "Model" }, ...["MSE", "RMSE", "MAE"].map((text) => ({ text, class: "figure" }))],
    rows: [...models].sort((one, other) => isOurs(other) - isOurs(one)).map((model) =>
      element("tr", { class: isOurs(model) ? "sum" : undefined }, element("th", { scope: "row" }, model.model),
        ...[model.mse, model.rmse, model.mae].map((one) => element("td", { class: "figure" }, ...estimate(one))))),
  });
}

const isOurs = ({ model }) => model === "U-BERT";

function store(measured) {
  const operations = histograms(measured, "ubert_store_seconds", "operation").sort((one, other) => other.sum - one.sum);
  if (!operations.length) return element("p", { class: "note" }, "No operations so far.");
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
      caption: "Pairs rated, by what the rating was based on",
      className: "bars",
      head: [{ text: "Basis" }, { text: "Share" }, { text: "Pairs", class: "figure" }],
      rows: by.map((sample) => countRow(shortGrounds(sample.labels), sample.value, total)),
    }),
    element("p", { class: "note" }, lost ? `${count(lost)} states that should have been read were lost.` : "No state was missing."),
  );
}

function residents(measured) {
  const asked = measured.filter((sample) => sample.name === "ubert_residents_asked_total");
  if (!asked.length) return element("p", { class: "note" }, "No lookups so far.");
  const gauge = (name) => measured.find((sample) => sample.name === name)?.value ?? 0;
  const stale = gauge("ubert_residents_stale_seconds");
  return element(
    "div",
    {},
    element("p", {}, `${megabytes(gauge("ubert_residents_bytes"))} held in this process. `,
      stale ? `The store is away: changes of the last ${duration(stale)} are unknown.` : "In step with the store."),
    table({
      caption: "Lookups of review lists and states, by whether this process held them",
      className: "bars",
      head: [{ text: "Wanted" }, { text: "Share" }, { text: "Times", class: "figure" }],
      rows: asked.map(({ labels, value }) =>
        countRow(`${labels.kind}, ${labels.outcome}`, value, sum(asked.filter((other) => other.labels.kind === labels.kind)))),
    }),
  );
}

const sum = (measured) => measured.reduce((total, sample) => total + sample.value, 0);
