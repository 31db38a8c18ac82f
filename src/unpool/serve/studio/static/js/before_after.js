// Two images of one size over each other, with a divider: before on its left, after on its right.

import { h, slider } from "./parts.js";

export class BeforeAfter {
  /** @param {string} label */
  constructor(label) {
    this.before = h("img", { alt: "", draggable: false });
    this.after = h("img.layer", { alt: "", draggable: false, hidden: true });
    this.frame = h("div.canvas.compare", null, this.before, this.after);
    this.at = slider({ label, min: 0, max: 100, step: 1, value: 50, show: (v) => `${v} %`, oninput: () => this.divide() });
    this.at.element.hidden = true;
    const drag = (/** @type {PointerEvent} */ event) => {
      if (this.after.hidden || (event.type === "pointermove" && !event.buttons)) return;
      const box = this.frame.getBoundingClientRect();
      this.at.set(Math.round(100 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))));
      this.divide();
    };
    for (const type of ["pointerdown", "pointermove"]) this.frame.addEventListener(type, drag);
    this.elements = [this.frame, this.at.element];
  }

  divide() {
    const at = this.at.input.value;
    this.after.style.clipPath = `inset(0 0 0 ${at}%)`;
    this.frame.style.setProperty("--wipe", this.after.hidden ? "-1%" : `${at}%`);
  }

  /** Show an image alone. @param {{url: string, width: number, height: number, name: string}} image */
  show(image) {
    this.frame.style.setProperty("--aspect", String(image.width / image.height));
    this.before.src = image.url;
    this.before.alt = `${image.name || "The image"}, before`;
    this.after.hidden = this.at.element.hidden = true;
    this.divide();
  }

  /** Show the result over it. @param {string} before @param {string} after */
  async result(before, after) {
    const images = [before, after].map((src) => Object.assign(new Image(), { src }));
    await Promise.all(images.map((image) => image.decode()));
    this.before.src = before;
    this.after.src = after;
    this.after.alt = "The restored image, after";
    this.after.hidden = this.at.element.hidden = false;
    this.divide();
  }
}
