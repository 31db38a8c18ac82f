// The page Restore: an image before and after, by a PSF that is known or estimated.

import { follow, json, latest, query } from "./api.js";
import { BeforeAfter } from "./before_after.js";
import { copier, h, menu, percent, select, short, slider, spinner, toggle } from "./parts.js";
import { Psf, START } from "./psf.js";
import { asCommand, asPython, optionsOf, VALUES } from "./restoring.js";

const METHODS = [
  ["auto", "automatic"], ["given", "a network"], ["tv", "total variation"], ["tikhonov", "Tikhonov"], ["wiener", "Wiener"],
  ["rl", "Richardson-Lucy"], ["rl-fast", "Richardson-Lucy, accelerated"],
];
const NAMES = { balance: "Balance", lam: "Lambda", steps: "Steps" };
const BLUR = { psf: START, noise: "0.005" }; // of samples, which are sharp

class Restore {
  /** @param {HTMLElement} root @param {Record<string, string>} state @param {import("./main.js").App} app */
  constructor(root, state, app) {
    this.app = app;
    this.state = state;
    /** @type {Map<string, any>} blurred copies of samples by the id of the sample */
    this.blurred = new Map();
    /** @type {AbortController | null} */
    this.working = null;
    this.compare = new BeforeAfter("Divider between before and after");
    this.hint = h("p.readout", { role: "note" });
    this.doing = h("span");
    this.progress = h("progress", { max: 1, value: 0, "aria-label": "Progress", hidden: true });
    this.work = h("div.work", { hidden: true }, spinner(), this.doing, this.progress,
      h("button", { type: "button", onclick: () => this.stop() }, "Cancel"));
    this.summary = h("div.summary");
    this.actions = h("div.actions");
    root.append(h("h1.hidden", null, "Restore"),
      h("section.stage", { id: "stage", "aria-label": "Result" }, ...this.compare.elements, this.hint, this.work, this.summary, this.actions),
      h("section.panel", { "aria-label": "Options" }, ...this.controls()));
    this.run = latest((signal) => this.run_(signal));
    this.update(state);
  }

  controls() {
    const { app } = this;
    this.psf = new Psf((psf) => app.go({ psf: psf === START ? "" : psf }), app.say);
    this.method = select({ label: "Method", value: "auto",
      options: METHODS.map(([name, text]) => [name, text[0].toUpperCase() + text.slice(1)]),
      onchange: (method) => app.go({ method: method === "auto" ? "" : method, balance: "", lam: "", steps: "" }) });
    this.reason = h("p.small");
    this.chosen = toggle({ label: "Choose its value from the noise", checked: true,
      onchange: (on) => app.go({ [this.parameter]: on ? "" : this.parameter === "steps" ? 20 : 0.01 }) });
    const power = (/** @type {number} */ v) => Number((10 ** v).toPrecision(2));
    this.value = slider({ label: "Value", min: -5, max: 0, step: 0.05, value: -2, show: (v) => short(power(v)),
      oninput: () => {}, onchange: (v) => app.go({ [this.parameter]: power(v) }) });
    this.steps = slider({ label: "Steps", min: 1, max: 200, step: 1, value: 20, oninput: () => {}, onchange: (n) => app.go({ steps: n }) });
    this.estimated = toggle({ label: "Estimate the noise", checked: true, onchange: (on) => app.go({ noise: on ? "" : this.noiseFound ?? 0.01 }) });
    this.noise = slider({ label: "Noise", min: -4, max: -1, step: 0.02, value: -2, show: (v) => short(power(v)), oninput: () => {}, onchange: (v) => app.go({ noise: power(v) }) });
    this.gamma = toggle({ label: "In linear light (sRGB)", checked: false, onchange: (on) => app.go({ gamma: on ? 1 : "" }) });
    this.luma = toggle({ label: "Luminance only, quicker", checked: false, onchange: (on) => app.go({ luma: on ? 1 : "" }) });
    return [
      h("details.options", { open: true }, h("summary", null, "What blurred it"), ...this.psf.elements),
      h("details.options", { open: true }, h("summary", null, "Method"), this.method.element, this.reason, this.chosen.element, this.value.element, this.steps.element),
      h("details.options", { open: true }, h("summary", null, "Noise and light"), this.estimated.element, this.noise.element, this.gamma.element, this.luma.element),
    ];
  }

  get parameter() {
    return VALUES[/** @type {"tv"} */ (this.state.method ?? "auto")] ?? "";
  }

  /** @param {Record<string, string>} state */
  update(state) {
    this.state = state;
    const { parameter } = this;
    this.psf.set(state.psf ?? START);
    this.method.set(state.method ?? "auto");
    this.chosen.element.hidden = !parameter;
    this.chosen.set(!state[parameter]);
    this.value.element.hidden = !parameter || parameter === "steps" || !state[parameter];
    this.steps.element.hidden = parameter !== "steps" || !state.steps;
    this.value.element.firstChild.textContent = NAMES[/** @type {"lam"} */ (parameter)] ?? "Value";
    if (state[parameter]) this.value.set(Math.log10(Number(state[parameter])));
    if (state.steps) this.steps.set(Number(state.steps));
    this.estimated.set(!state.noise);
    this.noise.element.hidden = !state.noise;
    if (state.noise) this.noise.set(Math.log10(Number(state.noise)));
    this.gamma.set(Boolean(state.gamma));
    this.luma.set(Boolean(state.luma));
    if (this.app.image()) this.run();
  }

  /** The image to restore: samples are sharp, so a blurred copy of them. @param {AbortSignal} signal */
  async source(signal) {
    const image = /** @type {import("./images.js").Image} */ (this.app.image());
    this.samples ??= new Set((await json("/api/samples")).map((/** @type {any} */ sample) => sample.id));
    if (!this.samples.has(image.id)) return { ...image, sample: false };
    if (!this.blurred.has(image.id)) {
      this.doing.textContent = "Blurring the sample";
      const facts = await json(query(`/api/images/${image.id}/blur`, BLUR), { method: "POST", signal, waiting: this.app.say });
      this.blurred.set(image.id, { ...facts, url: `/api/images/${facts.id}/view.jpg`, sample: true });
    }
    return this.blurred.get(image.id);
  }

  /** @param {AbortSignal} signal */
  async run_(signal) {
    const own = (this.working = new AbortController());
    const either = AbortSignal.any([signal, own.signal]);
    const options = optionsOf(this.state);
    this.work.hidden = false;
    this.progress.hidden = true;
    try {
      const image = await this.source(either);
      if (either.aborted) return;
      if (image.id !== this.image?.id) {
        this.image = image;
        this.compare.show(image);
        this.summary.replaceChildren();
        this.actions.replaceChildren();
        this.hint.textContent = image.sample ? `This sample was blurred by ${BLUR.psf}, with a noise of ${BLUR.noise}.` : "";
      }
      this.doing.textContent = "Restoring";
      const path = query(`/api/images/${image.id}/restore`, { ...options, luma: options.luma ? "yes" : "" });
      const { job } = await json(path, { method: "POST", signal: either, waiting: (/** @type {string} */ text) => (this.doing.textContent = text) });
      const facts = await follow(job, {
        queued: ({ before }) => before && (this.doing.textContent = `${before} before this one`),
        progress: ({ done, total }) => Object.assign(this.progress, { max: total, value: done, hidden: total < 2 }),
      }, either);
      if (!facts || either.aborted) return;
      await this.compare.result(facts.before, facts.after);
      if (!either.aborted) this.show(facts, options);
    } catch (error) {
      if (either.aborted) return;
      this.forget();
      this.summary.replaceChildren(h("b", null, "Not restored"), /** @type {Error} */ (error).message);
      this.app.say(/** @type {Error} */ (error).message);
    } finally {
      if (!signal.aborted) this.work.hidden = true;
    }
  }

  /** A result of other options is not shown as that of these. */
  forget() {
    if (this.image) this.compare.show(this.image);
    this.actions.replaceChildren();
    this.reason.textContent = "";
  }

  /** @param {any} facts @param {Record<string, any>} options */
  show(facts, options) {
    const { app } = this;
    this.noiseFound = Number(facts.noise.toPrecision(2));
    this.psf.tell(facts.psf, facts.psf_changes);
    const [, title] = METHODS.find(([name]) => name === facts.method) ?? ["", facts.method];
    this.reason.textContent = options.method ? "" : `By ${title}: ${facts.reason.replace(/^auto: /, "")}.`;
    const parameter = ["balance", "lam", "steps"].find((name) => name in facts);
    const said = [
      parameter && `${parameter} ${short(facts[parameter])}${facts.chosen_by_noise ? ", chosen from the noise" : ""}`,
      `noise ${short(facts.noise)}${facts.noise_estimated ? ", estimated" : ""}`,
      facts.residual != null && `residual ${short(facts.residual)}`,
      facts.clipped >= 0.001 && `${percent(facts.clipped)} of the values clipped`,
      facts.pages > 1 && `the first of ${facts.pages} pages is shown`,
      `${facts.seconds.toFixed(2)} s`,
    ].filter(Boolean).join("; ");
    const more = facts.noise_to_try && Number(facts.noise_to_try.toPrecision(2));
    this.summary.replaceChildren(h("b", null, `Restored by ${title}`), said, more ?
      h("p.hint", null, "The noise is larger than estimated, as in JPEG files, or this PSF is wrong. ",
        h("button", { type: "button", onclick: () => app.go({ noise: more }) }, `Try a noise of ${more}`)) : "");
    app.say(`Restored by ${title}.`);
    const stem = (this.image.name || "image").replace(/\.[^.]*$/, "");
    const name = `${stem}${facts.suffix}`;
    this.actions.replaceChildren(
      menu("Save", [
        { text: "Restored image", note: `${facts.suffix.slice(1).toUpperCase()}, of the type of the image`, href: facts.file, name: `${stem}-restored${facts.suffix}` },
        { text: "What is shown", note: "PNG, 8 bits", href: facts.after, name: `${stem}-shown.png` },
        ...(this.image.sample ? [{ text: "Blurred sample", note: "PNG", href: facts.before, name }] : []),
      ]),
      copier("Copy as command", () => asCommand(this.image.name || name, options), app.say),
      copier("Copy as Python", () => asPython(this.image.name || name, options, facts.suffix), app.say));
  }

  /** Give up what is computed. */
  stop() {
    if (this.work.hidden) return false;
    this.working?.abort();
    this.work.hidden = true;
    this.app.say("Cancelled.");
    return true;
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    switch (event.key) {
      case "e": return !this.psf.estimate.element.hidden && (this.psf.estimate.input.click(), true);
      case "x": {
        const { at } = this.compare;
        at.set(Number(at.input.value) > 50 ? 0 : 100);
        this.compare.divide();
        return true;
      }
      case "Escape": return this.stop();
      case "s": {
        const files = this.actions.querySelector("details");
        if (files) (files.open = true), files.querySelector("a").focus();
        return Boolean(files);
      }
      default: return false;
    }
  }

  unmount() {
    this.working?.abort();
  }
}

/** @type {import("./main.js").Page} */
export const page = {
  name: "restore",
  title: "Restore",
  key: "4",
  keys: [["e", "estimate the PSF"], ["x", "before or after alone"], ["s", "save"], ["Esc", "cancel"]],
  mount: (root, state, app) => new Restore(root, state, app),
};
