// What blurred an image, on the page Restore: a kind and its numbers, or an estimate; and its image.

import { ask, oneAtATime, query } from "./api.js";
import { h, select, slider, toggle } from "./parts.js";

/** @typedef {{name: string, label: string, min: number, max: number, step: number, value: number, unit: string}} Number_ */

const size = (/** @type {string} */ label, /** @type {number} */ max, /** @type {number} */ value, step = 0.1) =>
  ({ label, min: step, max, step, value, unit: " px" });

/** The kinds of PSFs: a title, and their numbers in order. */
const KINDS = {
  motion: ["Motion of the camera", [{ ...size("Length", 60, 13, 0.5), min: 1 }, { label: "Direction", min: 0, max: 179, step: 1, value: 30, unit: "°" }]],
  disk: ["Out of focus", [{ ...size("Radius", 20, 3.5), min: 0.5 }]],
  gaussian: ["Gaussian", [{ ...size("Standard deviation", 12, 1.6), min: 0.3 }]],
  airy: ["Diffraction (Airy)", [{ ...size("Radius of the first dark ring", 20, 4), min: 1 }]],
  moffat: ["Telescope (Moffat)", [{ ...size("Width at half height", 20, 4), min: 0.5 }, { label: "Beta", min: 1.1, max: 10, step: 0.1, value: 3, unit: "" }]],
  shake: ["Shaking hand, random", [{ label: "Number", min: 0, max: 99, step: 1, value: 7, unit: "" }, { label: "Size", min: 5, max: 61, step: 2, value: 31, unit: " px" }]],
};
const ESTIMATED = ["motion", "disk", "gaussian"];
export const START = "motion:13,30";

/** @param {string} text a PSF as the command line takes it */
function parse(text) {
  const [first, rest = ""] = text.split(":");
  const estimated = first === "estimate";
  const kind = estimated ? rest : first;
  return { kind: kind in KINDS ? kind : "motion", estimated, numbers: estimated ? [] : rest.split(",").filter(Boolean).map(Number) };
}

export class Psf {
  /** @param {(text: string) => void} change called when another PSF was chosen @param {(text: string) => void} say */
  constructor(change, say) {
    this.change = change;
    this.text = START;
    this.kind = select({ label: "Kind", options: Object.entries(KINDS).map(([kind, [title]]) => [kind, String(title)]), value: "motion",
      onchange: (kind) => change(this.estimate.input.checked && ESTIMATED.includes(kind) ? `estimate:${kind}` : this.standard(kind)) });
    this.estimate = toggle({ label: "Estimate it from the image", checked: false,
      onchange: (on) => change(on ? `estimate:${this.kind.input.value}` : this.found ?? this.standard(this.kind.input.value)) });
    this.numbers = h("div.numbers");
    this.image = h("img.psf", { alt: "", hidden: true });
    this.caption = h("p.small");
    this.look = oneAtATime(async () => {
      const path = query("/api/psf.png", { psf: this.text.startsWith("estimate:") ? this.found : this.text });
      if (path === this.shown || path === "/api/psf.png") return;
      try {
        const blob = await (await ask(path)).blob();
        URL.revokeObjectURL(this.image.src);
        this.image.src = URL.createObjectURL(blob);
        this.image.hidden = false;
        this.shown = path;
      } catch (error) {
        say(/** @type {Error} */ (error).message);
      }
    });
    this.elements = [this.kind.element, this.estimate.element, this.numbers, h("figure.kernel", null, this.image, this.caption)];
  }

  /** @param {string} kind */
  standard(kind) {
    const [, numbers] = KINDS[/** @type {"motion"} */ (kind)];
    return `${kind}:${/** @type {any[]} */ (numbers).map(({ value }) => value).join(",")}`;
  }

  /** Show a PSF. @param {string} text */
  set(text) {
    this.text = text;
    const { kind, estimated, numbers } = parse(text);
    this.kind.set(kind);
    this.estimate.set(estimated);
    this.estimate.element.hidden = !ESTIMATED.includes(kind);
    this.numbers.hidden = estimated;
    const rows = /** @type {any[]} */ (KINDS[/** @type {"motion"} */ (kind)][1]);
    const sliders = rows.map(({ unit, ...row }, n) => slider({ ...row, value: numbers[n] ?? row.value, show: (v) => `${v}${unit}`,
      oninput: () => this.live(kind, sliders), onchange: () => this.change(this.text) }));
    const focused = [...this.numbers.querySelectorAll("input")].indexOf(/** @type {any} */ (document.activeElement));
    if (kind === this.listed) this.sliders.forEach((own, n) => own.set(numbers[n] ?? rows[n].value));
    else {
      this.sliders = sliders;
      this.numbers.replaceChildren(...sliders.map(({ element }) => element));
      if (focused >= 0) sliders[focused]?.input.focus();
    }
    this.listed = kind;
    if (!estimated) this.found = undefined;
    this.describe(estimated ? [] : null);
    this.look();
  }

  /** @param {string} kind @param {{input: HTMLInputElement}[]} sliders */
  live(kind, sliders) {
    this.text = `${kind}:${sliders.map(({ input }) => input.value).join(",")}`;
    this.describe(null);
    this.look();
  }

  /** What the server found: the PSF, and what was changed. @param {string} psf @param {string[]} changes */
  tell(psf, changes) {
    this.found = psf;
    this.describe(changes);
    this.look();
  }

  describe(/** @type {string[] | null} */ changes) {
    const text = this.text.startsWith("estimate:") ? this.found ?? "" : this.text;
    this.image.alt = `The PSF ${text}`;
    if (!text) this.image.hidden = true;
    this.caption.textContent = [text || "The PSF is estimated when the image is restored.", ...(changes ?? [])].join("; ");
  }
}
