// The decoder of a network, stage by stage, from coarse to fine.

import { json, latest, query } from "./api.js";
import { h, percent, select, short, spinner } from "./parts.js";

const PACE = 900; // ms a map

export class Decoder {
  /** @param {import("./look.js").Inside} inside @param {import("./main.js").App} app */
  constructor(inside, app) {
    Object.assign(this, { inside, app });
    /** @type {any} */
    this.found = null;
    /** @type {{image: string, title: string, text: string, side: number}[]} */
    this.frames = [];
    this.large = h("img", { alt: "" });
    this.title = h("figcaption");
    this.busy = h("div.over", { hidden: true }, spinner("Decoding"));
    this.strip = h("ol.stages", { "aria-label": "Maps of the decoder" });
    this.play = h("button.primary", { type: "button", onclick: () => this.toggle() }, "▶ Play");
    this.summary = h("p.summary");
    this.input = h("img", { alt: "What the network sees" });
    this.stage = [h("div.inside.pair", null, h("figure.part", null, this.input, h("figcaption", null, "What the network sees")), h("figure.part.large", null, this.large, this.title), this.busy), h("div.actions", null, this.play, this.summary), this.strip];
    this.label = select({ label: "Class", options: [["", "the largest"]], value: "", onchange: (name) => app.go({ class: name, map: "" }) });
    this.options = [this.label.element];
    this.notes = [h("div.caution", null, h("h2", null, "What is shown"),
      h("p", null, "Unpooling puts values back where the trunk found its maxima, so that sparse maps carry the outlines of the image. Deconvolution makes them dense."),
      h("p", null, "Of each layer, the map whose mean where the class is predicted exceeds its mean elsewhere by most; the paper does not say how it chose. Each map has its own contrast; in the score, mid-gray is zero."))];
    this.run = latest((signal) => this.decode(signal));
  }

  /** @param {Record<string, string>} state @param {import("./images.js").Image} image */
  update(state, image) {
    this.stop();
    const other = image !== this.image;
    Object.assign(this, { state, image });
    if (other) this.found = null;
    this.input.src = `/api/images/${image.id}/square.png`;
    if (!this.found || (state.class ?? "") !== this.asked) this.run();
    else this.show(this.chosen());
  }

  /** The map that the address names; the first, if it names none. */
  chosen() {
    return Math.min(Math.max(Math.floor(Number(this.state.map ?? 0)) || 0, 0), this.frames.length - 1);
  }

  /** @param {AbortSignal} signal */
  async decode(signal) {
    const asked = (this.asked = this.state.class ?? "");
    this.busy.hidden = false;
    try {
      const path = query(`/api/images/${this.image.id}/decode`, { class: asked });
      const found = await json(path, { method: "POST", signal, waiting: this.app.say });
      if (!signal.aborted) this.draw(found);
    } catch (error) {
      if (signal.aborted) return;
      this.found = null;
      this.frames = [];
      this.strip.replaceChildren();
      this.large.removeAttribute("src");
      this.title.textContent = this.summary.textContent = "";
      this.app.say(/** @type {Error} */ (error).message);
    } finally {
      if (!signal.aborted) this.busy.hidden = true;
    }
  }

  /** @param {any} found */
  draw(found) {
    this.found = found;
    this.label.fill([["", "the largest"], ...found.classes.map((/** @type {any} */ c) => [c.name, `${c.name}, ${percent(c.fraction)}`])], this.asked);
    const columns = found.stages.map((/** @type {any[]} */ pair) => pair.filter(Boolean).map((one) => ({
      image: one.image, side: one.size[0], title: `${one.layer}, ${one.size.join(" × ")}`, text: `map ${one.unit}, largest value ${short(one.largest)}`,
    })));
    const score = { image: found.image, side: this.inside.side, title: `Score of ${found.class}`, text: `mean ${short(found.score)} where it is predicted` };
    columns.push([score]);
    this.frames = columns.flat();
    let n = 0;
    this.strip.replaceChildren(...columns.map((/** @type {any[]} */ column) => h("li", null, ...column.map((one) => {
      const own = n++;
      return h("button.map", { type: "button", "data-map": own, title: one.title, onclick: () => this.app.go({ map: own }) },
        h("img", { src: one.image, alt: one.title }), h("small", null, `${one.side}`));
    }))));
    this.summary.textContent = `${found.class}, predicted on ${percent(found.fraction)} of the square`;
    this.show(this.chosen());
  }

  /** Show a map large. @param {number} n */
  show(n) {
    const frame = this.frames[n];
    if (!frame) return;
    this.at = n;
    this.large.src = frame.image;
    this.large.alt = frame.title;
    this.title.replaceChildren(h("b", null, frame.title), ` ${frame.text}`);
    for (const button of this.strip.querySelectorAll("button")) button.setAttribute("aria-pressed", String(Number(button.dataset.map) === n));
  }

  /** From coarse to fine, a map after the other; again from the start after the last. */
  toggle() {
    if (this.timer) return this.stop();
    if (!this.frames.length) return;
    this.show(0);
    this.play.textContent = "■ Stop";
    this.timer = setInterval(() => {
      if (this.at + 1 < this.frames.length) this.show(this.at + 1);
      else this.stop();
    }, PACE);
  }

  /** Stop playing; returns whether it was. */
  stop() {
    const playing = Boolean(this.timer);
    clearInterval(this.timer);
    this.timer = undefined;
    this.play.textContent = "▶ Play";
    return playing;
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    if (event.key === "p") return this.toggle(), true;
    if (event.key === "Escape") return this.stop();
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!step || !this.frames.length) return false;
    const map = Math.min(Math.max(this.at + step, 0), this.frames.length - 1);
    this.app.go({ map });
    /** @type {HTMLElement | null} */ (this.strip.querySelector(`[data-map="${map}"]`))?.focus();
    return true;
  }

  unmount() {
    this.stop();
  }
}
