// The classes of a result: names, colors, fractions; hide, recolor, cut out; what is at the pointer.

import { ask, query } from "./api.js";
import { loadGray, outline, paint, Palette } from "./canvas.js";
import { h, percent, slider, toggle } from "./parts.js";

/** Whether a class is the background by its name. */
export const isBackground = (/** @type {string | undefined} */ name) => /^[_ ]*background[_ ]*$/i.test(name ?? "");

/** A name for a file, from that of the image. @param {import("./images.js").Image} image */
export const stemOf = (image) => (image.name || "image").replace(/\.\w*$/, "").replaceAll(" ", "-");

/** The classes of the result that is shown, and how it is painted. */
export class Legend {
  /**
   * @param {import("./canvas.js").Stage} stage
   * @param {{id: number, name: string, color: number[]}[]} classes
   * @param {import("./main.js").App} app
   */
  constructor(stage, classes, app) {
    this.stage = stage;
    this.classes = classes;
    this.app = app;
    this.palette = new Palette();
    this.palette.fill(classes);
    this.hidden = new Set(isBackground(classes[0]?.name) ? [0] : []);
    this.opacity = 0.6;
    this.visible = true;
    this.chosen = this.lit = -1;
    /** @type {any} what is shown, with its ids and scores; and what is left of the divider */
    this.shown = null;
    this.left = null;
    this.readout = h("p.readout", { "aria-live": "polite" }, "Point at the image to read its classes.");
    this.mask = toggle({ label: "Show mask", checked: true, onchange: (on) => ((this.visible = on), this.repaint()) });
    this.vivid = toggle({ label: "Vivid colors", checked: true, onchange: (on) => (this.palette.fill(classes, on), this.list(), this.repaint()) });
    this.shade = slider({ label: "Opacity", min: 0, max: 1, step: 0.05, value: this.opacity, show: percent,
      oninput: (v) => ((this.opacity = v), this.repaint()) });
    this.rows = h("ul.classes");
    this.element = h("div.legend", null, h("h2", null, "Classes"), h("div.row", null, this.mask.element, this.vivid.element), this.shade.element, this.rows);
    const { element } = stage;
    for (const kind of ["pointermove", "pointerdown"])
      element.addEventListener(kind, (/** @type {PointerEvent} */ e) => this.point(stage.toPixel(e)));
    element.addEventListener("pointerleave", () => this.highlight(this.chosen));
  }

  clear() {
    this.shown = this.left = null;
    this.rows.replaceChildren();
    this.stage.clear();
  }

  /** Show a result. @param {any} facts @param {AbortSignal} signal */
  async show(facts, signal) {
    facts.ids ??= await loadGray(`/api/results/${facts.id}/ids.png`, signal);
    if (signal.aborted) return;
    this.shown = facts;
    this.chosen = this.lit = -1;
    this.list();
    this.repaint();
  }

  /** Load the probabilities of a result. @param {any} facts @param {AbortSignal} signal */
  async load(facts, signal) {
    if (!facts.scores.length || facts.planes) return;
    const bytes = await (await ask(`/api/results/${facts.id}/scores.bin`, { signal })).arrayBuffer();
    facts.planes = new Uint8Array(bytes);
  }

  list() {
    if (!this.shown) return;
    const { labels, id: result, image } = this.shown;
    const ids = new Map(this.classes.map((row) => [row.name, row.id]));
    this.rows.replaceChildren(...Object.entries(labels).map(([name, fraction]) => {
      const id = ids.get(name) ?? 255;
      const color = h("input", { type: "color", value: this.palette.hex(id), "aria-label": `Color of ${name}`, title: `Color of ${name}`,
        oninput: () => (this.palette.recolor(id, color.value), this.repaint()) });
      const eye = h("input", { type: "checkbox", checked: !this.hidden.has(id), "aria-label": `Show ${name}`, title: `Show ${name}`,
        onchange: () => this.hide(id, !eye.checked) });
      const href = query(`/api/results/${result}/cutout-${id}.png`, { download: `${stemOf(image)}-${name}` });
      const cut = h("a.quiet", { href, download: "", title: `Cut out ${name}`, "aria-label": `Cut out ${name}` }, "✂");
      return h("li", { "data-id": id, onpointerenter: () => this.highlight(id), onpointerleave: () => this.highlight(this.chosen) },
        color, h("span.name", null, name), h("span.number", null, percent(fraction)), eye, cut);
    }));
  }

  hide(/** @type {number} */ id, /** @type {boolean} */ hidden) {
    if (hidden) this.hidden.add(id);
    else this.hidden.delete(id);
    this.repaint();
  }

  /** Outline a class, and dim the others; -1 for none. */
  highlight(/** @type {number} */ id) {
    if (id === this.lit) return;
    this.lit = id;
    for (const row of this.rows.children) row.classList.toggle("lit", Number(row.dataset.id) === id);
    this.repaint();
  }

  repaint() {
    if (!this.shown) return;
    const lit = this.lit >= 0 && !this.hidden.has(this.lit) ? this.lit : -1;
    for (let id = 0; id < 256; id++) {
      const dim = lit >= 0 && id !== lit ? 0.35 : 1;
      this.palette.fade(id, !this.visible || this.hidden.has(id) ? 0 : this.opacity * dim);
    }
    paint(this.stage.mask, this.shown.ids, this.palette);
    if (this.left?.ids) paint(this.stage.other, this.left.ids, this.palette);
    outline(this.stage.edges, this.shown.ids, this.visible ? lit : -1);
  }

  /** Put a result left of a divider, and the shown one right of it. @param {any} left null for the photo @param {number | null} at percent; null for no divider */
  divide(left, at) {
    const { mask, other, edges, element } = this.stage;
    this.left = left;
    other.hidden = at === null || !left;
    mask.style.clipPath = edges.style.clipPath = at === null ? "" : `inset(0 0 0 ${at}%)`;
    other.style.clipPath = `inset(0 ${100 - (at ?? 0)}% 0 0)`;
    element.style.setProperty("--wipe", at === null ? "-1%" : `${at}%`);
    this.repaint();
  }

  /** Read the classes at a pixel. @param {{x: number, y: number} | null} at */
  point(at) {
    if (!at || !this.shown) return this.highlight(this.chosen);
    const { ids, planes, scores } = this.shown;
    const x = Math.floor((at.x * ids.width) / this.stage.size.width);
    const y = Math.floor((at.y * ids.height) / this.stage.size.height);
    const i = y * ids.width + x;
    const name = (/** @type {number} */ id) => this.classes[id]?.name ?? "void";
    /** @type {[number, number][]} */
    const all = planes ? scores.map((/** @type {number} */ id, /** @type {number} */ k) => [id, planes[k * ids.data.length + i]]) : [];
    const ranked = all.sort((a, b) => b[1] - a[1]).filter(([, v], n) => n < 2 || v).slice(0, 3);
    const texts = ranked.map(([id, v]) => `${name(id)} ${(v / 255).toFixed(2)}`);
    this.readout.replaceChildren(h("b", null, texts[0] ?? name(ids.data[i])),
      texts.slice(1).map((text) => `, ${text}`).join(""), h("span", null, ` at (${at.x}, ${at.y})`));
    this.highlight(ids.data[i]);
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    const ids = [...this.rows.children].map((row) => Number(row.dataset.id));
    switch (event.key) {
      case "m": this.mask.input.click(); return true;
      case "o": case "O":
        this.opacity = Math.min(1, Math.max(0, this.opacity + (event.key === "o" ? 0.1 : -0.1)));
        this.shade.set(this.opacity);
        this.repaint();
        return true;
      case "[": case "]": {
        if (!ids.length) return false;
        const step = event.key === "]" ? 1 : -1;
        const at = this.chosen < 0 ? (step > 0 ? 0 : ids.length - 1) : ids.indexOf(this.chosen) + step;
        this.chosen = ids[(at + ids.length) % ids.length];
        this.highlight(this.chosen);
        this.app.say(this.classes[this.chosen]?.name ?? "void");
        return true;
      }
      case "h":
        this.rows.querySelector(`[data-id="${this.lit}"] [type=checkbox]`)?.click();
        return this.lit >= 0;
    }
    if (document.activeElement !== this.stage.element || !this.stage.steer(event)) return false;
    this.point(this.stage.cursor);
    return true;
  }
}
