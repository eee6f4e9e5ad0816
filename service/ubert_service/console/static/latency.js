// How long each route took. The choice of a route is built once: a list that is open must not close with each refresh.

import { bucketTable, summaryTable } from "./distributions.js";
import { element, renew } from "./elements.js";
import { histograms } from "./exposition.js";

const OWN_FILES = /^\/(console\/.*)?$/;
const FIRST_SHOWN = "/predict";

export class Latency {
  constructor() {
    this.routes = [];
    this.none = element("p", { class: "note" }, "No request so far.");
    this.summary = element("div");
    this.choice = element("select", { id: "status-route", on: { change: () => this.#draw() } });
    this.chosen = element("p", { class: "toolbar" }, element("label", { for: this.choice.id }, "Distribution of"), this.choice);
    this.chart = element("div");
    this.place = element("div", {}, this.none, this.summary, this.chosen, this.chart);
  }

  show(measured) {
    this.routes = histograms(measured, "ubert_request_seconds", "route").filter(({ key }) => !OWN_FILES.test(key));
    this.routes.sort((one, other) => other.count - one.count);
    this.none.hidden = this.routes.length > 0;
    for (const part of [this.summary, this.chosen, this.chart]) part.hidden = !this.routes.length;
    if (!this.routes.length) return;
    this.#offer(this.routes.map(({ key }) => key).sort());
    renew(this.summary, summaryTable("Requests since the start, by route", "Route", this.routes));
    this.#draw();
  }

  #offer(keys) {
    const { value, options } = this.choice;
    if (keys.join() === [...options].map((option) => option.value).join()) return;
    const chosen = [value, FIRST_SHOWN, this.routes[0].key].find((key) => keys.includes(key));
    this.choice.replaceChildren(...keys.map((key) => element("option", { value: key, selected: key === chosen }, key)));
  }

  #draw() {
    renew(this.chart, bucketTable(this.routes.find(({ key }) => key === this.choice.value)));
  }
}
