// How the service is, in words: in the line at the top of every view, and in the view of its status.

import { announce, element } from "./elements.js";
import { readiness } from "./service.js";

const PAUSE_MS = 10_000;
export const PATIENCE_MS = 10_000;

const sign = (kind, shape) => element("span", { class: `sign ${kind}`, "aria-hidden": "true" }, shape);

export const ready = (text) => [sign("good", "●"), ` ${text}`];
export const notReady = (text) => element("span", { class: "trouble" }, sign("bad", "▲"), ` ${text}`);
export const degraded = (detail) =>
  element("span", { class: "trouble" }, sign("bad", "◐"), " ", element("strong", {}, "Degraded:"), ` ${detail ?? "the service does not say why"}`);

// Asked every few seconds while somebody can see the page: a store comes and goes, and a bundle is replaced.
export class ReadinessLine {
  constructor(place, onChange) {
    this.place = place;
    this.onChange = onChange;
    document.addEventListener("visibilitychange", () => this.follow());
  }

  async follow() {
    clearTimeout(this.timer);
    if (document.hidden || this.asking) return;
    this.asking = true;
    this.#show(await line());
    this.asking = false;
    if (!document.hidden) this.timer = setTimeout(() => this.follow(), PAUSE_MS);
  }

  #show(content) {
    const before = this.place.textContent;
    this.place.replaceChildren(...content);
    const now = this.place.textContent;
    if (!before || before === now) return;
    announce(now);
    this.onChange();
  }
}

async function line() {
  try {
    const { status, detail, bundle } = await readiness(AbortSignal.timeout(PATIENCE_MS));
    return status === "degraded" ? [degraded(detail), ` Bundle ${bundle}`] : ready(`Ready, bundle ${bundle}`);
  } catch (problem) {
    return [notReady(problem.title)];
  }
}
