// Two results of an image, or a result and the photo, with a divider between them.

import { h, select, slider } from "./parts.js";

/** Chooses what is left of the divider, and where that is. */
export class Compare {
  /** @param {import("./legend.js").Legend} legend */
  constructor(legend) {
    this.legend = legend;
    /** @type {Map<string, any>} results of the image by key, the last one at the end */
    this.results = new Map();
    this.choice = select({ label: "Compare with", value: "", options: [["", "nothing"]], onchange: () => this.apply() });
    this.divider = slider({ label: "Divider", min: 0, max: 100, step: 1, value: 50, show: (v) => `${v} %`, oninput: () => this.apply() });
    this.names = h("p.small");
    this.bar = h("div.wipe", { hidden: true }, this.divider.element, this.names);
    const { element } = legend.stage;
    element.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (!(event.buttons & 1) || !this.choice.input.value) return;
      const box = element.getBoundingClientRect();
      this.divider.set(Math.round((100 * (event.clientX - box.left)) / box.width));
      this.apply();
    });
  }

  clear() {
    this.results.clear();
    this.list();
  }

  /** Remember a result, which is now the one that is shown. @param {any} shown */
  add(shown) {
    this.results.delete(shown.key);
    this.results.set(shown.key, shown);
    for (const key of [...this.results.keys()].slice(0, -8)) this.results.delete(key);
    this.list();
  }

  list() {
    const keys = [...this.results.keys()];
    const chosen = this.choice.input.value;
    const rows = keys.slice(0, -1).reverse().map((key) => [key, this.results.get(key).name]);
    this.choice.fill([["", "nothing"], ["photo", "the photo"], ...rows],
      chosen === "photo" || rows.some(([key]) => key === chosen) ? chosen : "");
    this.apply();
  }

  apply() {
    const key = this.choice.input.value;
    this.bar.hidden = !key;
    this.names.textContent = `Left: ${this.results.get(key)?.name ?? "the photo"}. Right: ${[...this.results.values()].at(-1)?.name}.`;
    this.legend.divide(this.results.get(key) ?? null, key ? Number(this.divider.input.value) : null);
  }

  /** Compare with the result before, or the photo; or stop comparing. */
  toggle() {
    const { input } = this.choice;
    input.value = input.value ? "" : (input.options[2] ?? input.options[1]).value;
    this.apply();
  }
}
