// The classes of a result: names, colors, fractions; hide, recolor, cut out; what is at the pointer.

import { ask, query } from "./api.js";
import { loadGray, outline, paint, Palette } from "./canvas.js";
import { h, percent, slider, toggle } from "./parts.js";

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
    this.palette = new Palette(classes);
    this.hidden = new Set([0]); // the background
    this.opacity = 0.6;
    this.visible = true;
    this.chosen = -1;
    /** @type {any} what is shown, with its ids and scores; and what it is compared with */
    this.shown = null;
    this.other = null;
    this.readout = h("p.readout", { role: "note" }, "Point at the image to read its classes.");
    this.mask = toggle({ label: "Mask", checked: true, onchange: (on) => ((this.visible = on), this.repaint()) });
    this.shade = slider({ label: "Opacity", min: 0, max: 1, step: 0.05, value: this.opacity, show: percent,
      oninput: (v) => ((this.opacity = v), this.repaint()) });
    this.compare = toggle({ label: "Compare", checked: false, onchange: () => this.arrange() });
    this.wipe = h("div.wipe", { hidden: true });
    this.names = h("p.small");
    this.at = slider({ label: "Divider between before and after", min: 0, max: 100, step: 1, value: 50, show: (v) => `${v} %`, oninput: () => this.arrange() });
    this.wipe.append(this.at.element, this.names);
    this.rows = h("ul.classes");
    this.element = h("div.legend", null, h("h2", null, "Classes"), h("div.row", null, this.mask.element, this.compare.element), this.shade.element, this.rows);
    const { element } = stage;
    element.addEventListener("pointermove", (/** @type {PointerEvent} */ e) => this.point(stage.toPixel(e)));
    element.addEventListener("pointerdown", (/** @type {PointerEvent} */ e) => this.point(stage.toPixel(e)));
    element.addEventListener("pointerleave", () => this.highlight(this.chosen));
  }

  /** Show a result; `before` is the one to compare it with. */
  async show(/** @type {any} */ image, /** @type {any} */ facts, /** @type {any} */ before, /** @type {AbortSignal | undefined} */ signal = undefined) {
    if (!facts) {
      this.shown = this.other = null;
      this.rows.replaceChildren();
      return this.arrange();
    }
    const ids = await loadGray(`/api/results/${facts.id}/ids.png`, signal);
    if (signal?.aborted) return;
    this.other = before ? this.shown : null;
    this.shown = Object.assign(facts, { ids, image });
    this.chosen = -1;
    this.list();
    this.arrange();
    if (!facts.scores.length) return;
    const bytes = await (await ask(`/api/results/${facts.id}/scores.bin`, { signal })).arrayBuffer();
    facts.planes = new Uint8Array(bytes);
  }

  list() {
    const { labels, id: result, image } = this.shown;
    const byName = new Map(this.classes.map((row) => [row.name, row]));
    const stem = (image.name || "image").replace(/\.[^.]*$/, "");
    this.rows.replaceChildren(...Object.entries(labels).map(([name, fraction]) => {
      const id = byName.get(name)?.id ?? 255;
      const color = h("input", { type: "color", value: this.palette.hex(id), "aria-label": `Color of ${name}`,
        oninput: () => (this.palette.recolor(id, color.value), this.repaint()) });
      const eye = h("input", { type: "checkbox", checked: !this.hidden.has(id), "aria-label": `Show ${name}`, onchange: () => this.hide(id, !eye.checked) });
      const cut = h("a.quiet", { href: query(`/api/results/${result}/cutout-${id}.png`, { download: `${stem}-${name}` }), download: "", title: `Cut out ${name}`, "aria-label": `Cut out ${name}` }, "✂");
      return h("li", { "data-id": id, onpointerenter: () => this.highlight(id), onpointerleave: () => this.highlight(this.chosen) },
        color, h("span.name", null, name), h("span.number", null, percent(fraction)), eye, cut);
    }));
  }

  hide(/** @type {number} */ id, /** @type {boolean} */ hidden) {
    if (hidden) this.hidden.add(id);
    else this.hidden.delete(id);
    this.repaint();
  }

  highlight(/** @type {number} */ id) {
    if (id === this.lit) return;
    this.lit = id;
    for (const row of this.rows.children) row.classList.toggle("lit", Number(row.dataset.id) === id);
    this.repaint();
  }

  repaint() {
    if (!this.shown) return;
    const lit = this.lit ?? -1;
    for (let id = 0; id < 256; id++) {
      const dim = lit > 0 && id !== lit ? 0.35 : 1;
      this.palette.fade(id, !this.visible || this.hidden.has(id) ? 0 : this.opacity * dim);
    }
    paint(this.stage.mask, this.shown.ids, this.palette);
    if (this.other) paint(this.stage.other, this.other.ids, this.palette);
    outline(this.stage.edges, this.shown.ids, this.visible && lit > 0 ? lit : -1);
  }

  /** Lay the results side by side at the divider. */
  arrange() {
    const { mask, other } = this.stage;
    const on = this.compare.input.checked && Boolean(this.shown);
    const at = this.at.input.value;
    this.wipe.hidden = !on;
    other.hidden = !on || !this.other;
    mask.style.clipPath = on ? `inset(0 0 0 ${at}%)` : "";
    other.style.clipPath = `inset(0 ${100 - at}% 0 0)`;
    this.stage.element.style.setProperty("--wipe", on ? `${at}%` : "-1%");
    const name = (/** @type {any} */ facts) => facts?.description.split(",").slice(0, 2).join(",") ?? "the photo";
    if (on) this.names.textContent = `Left: ${name(this.other)}. Right: ${name(this.shown)}.`;
    if (this.shown) this.repaint();
    else this.stage.clear();
  }

  /** Read the classes at a pixel. @param {{x: number, y: number} | null} at */
  point(at) {
    if (!at || !this.shown) return this.highlight(this.chosen);
    const { ids, planes, scores } = this.shown;
    const x = Math.floor((at.x * ids.width) / this.stage.size.width);
    const y = Math.floor((at.y * ids.height) / this.stage.size.height);
    const i = y * ids.width + x;
    const name = (/** @type {number} */ id) => this.classes[id]?.name ?? "void";
    const ranked = planes
      ? scores.map((/** @type {number} */ id, /** @type {number} */ k) => [id, planes[k * ids.data.length + i]])
        .sort((/** @type {number[]} */ a, /** @type {number[]} */ b) => b[1] - a[1]).slice(0, 3)
      : [];
    const texts = ranked.filter(([, v], n) => n < 2 || v).map(([id, v]) => `${name(id)} ${(v / 255).toFixed(2)}`);
    this.readout.replaceChildren(h("span", null, `(${at.x}, ${at.y}) `), h("b", null, texts[0] ?? name(ids.data[i])),
      texts.slice(1).map((text) => `, ${text}`).join(""));
    this.highlight(ids.data[i]);
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    const ids = [...this.rows.children].map((row) => Number(row.dataset.id));
    switch (event.key) {
      case "m": this.mask.input.click(); return true;
      case "x": this.compare.input.click(); return true;
      case "o": case "O":
        this.opacity = Math.min(1, Math.max(0, this.opacity + (event.key === "o" ? 0.1 : -0.1)));
        this.shade.set(this.opacity);
        this.repaint();
        return true;
      case "[": case "]": {
        const step = event.key === "]" ? 1 : -1;
        this.chosen = ids[(ids.indexOf(this.chosen) + step + ids.length) % ids.length] ?? -1;
        this.highlight(this.chosen);
        this.app.say(`${this.classes[this.chosen]?.name ?? "void"}`);
        return true;
      }
      case "h":
        this.rows.querySelector(`[data-id="${this.lit}"] [type=checkbox]`)?.click();
        return true;
    }
    if (document.activeElement !== this.stage.element || !this.stage.steer(event)) return false;
    this.point(this.stage.cursor);
    this.app.say(this.readout.textContent ?? "");
    return true;
  }
}
