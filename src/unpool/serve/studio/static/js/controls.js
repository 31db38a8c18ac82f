// The controls of the page Draw: styles, view, transformation, single units.

import { latest } from "./api.js";
import { DEFAULTS, request } from "./codes.js";
import { choice, h, select, short, slider, spinner } from "./parts.js";
import { Sheet } from "./sprites.js";

const UNITS = 32; // on a sheet
const TITLES = { "translate-x": "Shift across", "translate-y": "Shift down" };
/** @type {Record<string, string>} by the name of a control: what a style is in the blend or the sum */
const SLOTS = { from: "From", to: "To", minus: "Minus B", plus: "Plus C" };

/** A name of a style as people read it: "12 · folding chair". @param {string} name @param {number} n */
export const styleName = (name, n) => `${n} · ${name.replace(/^BlendSwap-CC-[0-9A-Z]+_(\d+_)?/, "").replaceAll("_", " ")}`;

/** @typedef {{input: (patch: Record<string, any>) => void, change: (patch: Record<string, any>) => void, say: (text: string) => void}} Tell */

export class Controls {
  /** @param {any} about what the server says of the generator @param {Tell} tell */
  constructor(about, tell) {
    this.about = about;
    this.tell = tell;
    /** @type {Record<string, string>} */
    this.state = {};
    this.slot = "from";
    const rows = about.styles.map((/** @type {string} */ name, /** @type {number} */ n) => [String(n), styleName(name, n)]);
    this.selects = Object.fromEntries(Object.entries(SLOTS).map(([slot, label]) =>
      [slot, select({ label, options: rows, value: DEFAULTS[/** @type {"from"} */ (slot)], onchange: (style) => tell.change({ [slot]: style }) })]));
    for (const [slot, { input }] of Object.entries(this.selects)) input.addEventListener("focus", () => this.aim(slot));
    this.kind = choice({ label: "Styles", options: [["", "Blend"], ["1", "A − B + C"]], value: "", onchange: (sum) => tell.change({ sum }) });
    this.sliders = {
      blend: this.range("blend", "Blend", 0, 1, 0.01, (v) => v.toFixed(2)),
      azimuth: this.range("azimuth", "Azimuth", 0, 360, 1, (v) => `${v}°`),
      elevation: this.range("elevation", "Elevation", -10, 70, 1, (v) => `${v}°`),
    };
    for (const { name, low, high } of about.changes) {
      const rough = (high - low) / 100;
      const step = [1, 2, 5].map((digit) => digit * 10 ** Math.floor(Math.log10(rough))).findLast((value) => value <= rough) ?? rough;
      const whole = (/** @type {number} */ v) => Number((Math.trunc(v / step) * step).toFixed(4));
      this.sliders[/** @type {"blend"} */ (name)] = this.range(name, title(name), whole(Math.min(low, 0)), whole(high), step, short);
    }
    this.gallery = h("div.styles", { role: "group", "aria-label": "All styles" });
    this.aimed = h("p.small");
    const all = h("details", null, h("summary", null, "All styles"), this.aimed, this.gallery);
    all.addEventListener("toggle", () => all.open && this.fillGallery());
    const reset = h("button.quiet", { type: "button", onclick: () =>
      tell.change(Object.fromEntries(about.changes.map((/** @type {any} */ change) => [change.name, ""]))) }, "Reset");
    const { blend, azimuth, elevation, ...changes } = this.sliders;
    this.changes = h("details.options", null, h("summary", null, "Transformation"), ...Object.values(changes).map(({ element }) => element), reset);
    this.elements = [
      h("details.options", { open: true }, h("summary", null, "Styles"), this.kind.element,
        ...Object.values(this.selects).map(({ element }) => element), blend.element, all),
      h("details.options", { open: true }, h("summary", null, "View"), azimuth.element, elevation.element),
      ...(about.changes.length ? [this.changes] : []),
      this.units(),
    ];
    this.aim("from");
  }

  /** @param {string} name @param {string} label @param {number} min @param {number} max @param {number} step @param {(v: number) => string} show */
  range(name, label, min, max, step, show) {
    const without = DEFAULTS[/** @type {"blend"} */ (name)] ?? "0";
    return slider({ label, min, max, step, value: Number(without), show,
      oninput: (v) => this.tell.input({ [name]: String(v) }),
      onchange: (v) => this.tell.change({ [name]: String(v) === without ? "" : String(v) }) });
  }

  /** Show a state. @param {Record<string, string>} state */
  set(state) {
    this.state = state;
    const full = /** @type {Record<string, string>} */ ({ ...DEFAULTS, ...state });
    this.kind.set(state.sum ? "1" : "");
    for (const [slot, control] of Object.entries(this.selects)) control.set(full[slot]);
    for (const [name, control] of Object.entries(this.sliders)) control.set(Number(full[name] ?? 0));
    const shown = state.sum ? ["from", "minus", "plus"] : ["from", "to"];
    for (const [slot, { element }] of Object.entries(this.selects)) element.hidden = !shown.includes(slot);
    this.selects.from.element.firstChild.textContent = state.sum ? "A" : "From";
    this.sliders.blend.element.hidden = Boolean(state.sum);
    if (!shown.includes(this.slot)) this.aim("from");
    this.mark();
    if (state.unit && !this.list.open) this.list.open = true;
    if (this.about.changes.some((/** @type {any} */ { name }) => Number(state[name]))) this.changes.open = true;
  }

  /** Say which style a click in the gallery replaces. @param {string} slot */
  aim(slot) {
    this.slot = slot;
    const label = { from: this.state.sum ? "A" : "from", to: "to", minus: "B", plus: "C" }[slot];
    this.aimed.textContent = `Choose the style ${label}.`;
    this.mark();
  }

  mark() {
    const full = /** @type {Record<string, string>} */ ({ ...DEFAULTS, ...this.state });
    for (const button of this.gallery.children)
      button.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (button).dataset.frame === full[this.slot]));
  }

  async fillGallery() {
    if (this.gallery.childElementCount) return;
    this.gallery.append(spinner("Drawing all styles"));
    try {
      const sheet = await Sheet.load(`${this.about.address}/styles.webp`);
      const every = Array.from({ length: sheet.count }, (_, n) => n);
      this.gallery.replaceChildren(...sheet.buttons(every, (n) => styleName(this.about.styles[n], n), (n) => this.tell.change({ [this.slot]: String(n) })));
      this.mark();
    } catch (error) {
      this.gallery.replaceChildren();
      this.tell.say(/** @type {Error} */ (error).message);
    }
  }

  /** Single units: a layer, and the images that its units make alone. */
  units() {
    const layers = this.about.layers;
    const start = layers.find((/** @type {any} */ layer) => layer.name === "shared.fc4") ?? layers[0];
    this.layer = select({ label: "Layer", options: layers.map((/** @type {any} */ { name, units }) => [name, `${name}, ${units} units`]),
      value: start.name, onchange: () => this.fillUnits(0) });
    this.first = slider({ label: "Units from", min: 0, max: start.units - 1, step: UNITS, value: 0, oninput: () => {}, onchange: (first) => this.fillUnits(first) });
    this.sheet = h("div.styles.units", { role: "group", "aria-label": "Units" });
    this.loadUnits = latest((signal, path) => Sheet.load(path, signal));
    this.list = h("details.options", null, h("summary", null, "Single units"),
      h("p.small", null, "What one unit draws alone. For layers of maps: how it changes the colors, gray for not at all."),
      this.layer.element, this.first.element, this.sheet);
    this.list.addEventListener("toggle", () => {
      if (!this.list.open || this.sheet.childElementCount) return;
      if (this.state.layer) this.layer.set(this.state.layer);
      this.fillUnits(Math.floor(Number(this.state.unit ?? 0) / UNITS) * UNITS);
    });
    return this.list;
  }

  /** @param {number} first */
  async fillUnits(first) {
    const layer = this.layer.input.value;
    const { units } = this.about.layers.find((/** @type {any} */ row) => row.name === layer);
    this.first.input.max = Math.max(0, Math.ceil(units / UNITS) - 1) * UNITS;
    this.first.set(first);
    this.first.element.hidden = units <= UNITS;
    this.sheet.replaceChildren(spinner("Drawing units"));
    try {
      const sheet = await this.loadUnits(request(`${this.about.address}/units.webp`, [["layer", layer], ["first", String(first)], ["count", String(UNITS)]]));
      if (!sheet) return; // another one was asked for meanwhile
      const every = Array.from({ length: sheet.count }, (_, n) => n);
      this.sheet.replaceChildren(...sheet.buttons(every, (n) => `Unit ${first + n}`, (n) => this.tell.change({ layer, unit: String(first + n) })));
    } catch (error) {
      this.sheet.replaceChildren();
      this.tell.say(/** @type {Error} */ (error).message);
    }
  }
}

const title = (/** @type {string} */ name) => TITLES[/** @type {"translate-x"} */ (name)] ?? name[0].toUpperCase() + name.slice(1);
