// The page Segment: a class for every pixel, over the photo.

import { follow, json, latest, query } from "./api.js";
import { Stage } from "./canvas.js";
import { choice, copier, h, menu, percent, select, slider, spinner, toggle } from "./parts.js";
import { Compare } from "./compare.js";
import { isBackground, Legend, stemOf } from "./legend.js";
import { asCommand, asPython, nameOf, optionsOf } from "./snippets.js";

const FILES = [
  ["mask.png", "Mask", "PNG of class ids with their colors"],
  ["overlay.jpg", "Overlay", "JPEG with a legend"],
  ["json", "JSON", "all about the result, with its mask"],
  ["coco.json", "COCO", "objects with run-length codes"],
  ["labelme.json", "labelme", "polygons"],
  ["yolo.txt", "YOLO", "polygons"],
  ["geojson", "GeoJSON", "polygons in pixels"],
];

class Segment {
  /** @param {HTMLElement} root @param {Record<string, string>} state @param {import("./main.js").App} app */
  constructor(root, state, app) {
    this.app = app;
    this.weights = app.about.weights;
    this.state = state;
    /** @type {any} the result that is shown */
    this.result = null;
    /** @type {AbortController | null} */
    this.working = null;
    this.stage = new Stage("The image and its classes. Arrow keys move a cursor, which reads the class below it.");
    this.legend = new Legend(this.stage, this.weights.classes, app);
    this.compare = new Compare(this.legend);
    this.controls();
    this.progress = h("progress", { max: 1, value: 0, "aria-label": "Progress", hidden: true });
    this.doing = h("span");
    this.cancel = h("button", { type: "button", onclick: () => this.stop() }, "Cancel");
    this.work = h("div.work", { hidden: true }, spinner(), this.doing, this.progress, this.cancel);
    this.summary = h("p.summary", { "aria-live": "polite" });
    this.actions = h("div.actions");
    root.append(h("h1.hidden", null, "Segment"),
      h("section.stage", { id: "stage", "aria-label": "Result" }, 
        h("div.stack", null, this.stage.element, this.work), this.compare.bar, this.legend.readout, this.summary, this.actions),
      h("section.panel", { "aria-label": "Options and classes" }, this.options, this.legend.element));
    this.legend.element.append(this.compare.choice.element);
    this.run = latest((signal) => this.segment(signal));
    this.update(state);
  }

  controls() {
    const { weights, app } = this;
    const names = { whole: "Whole", instance: "Instances", tiles: "Tiles" };
    this.mode = choice({ label: "Mode", value: "whole", options: weights.modes.map((/** @type {keyof typeof names} */ m) => [m, names[m]]),
      onchange: (mode) => app.go({ mode: mode === "whole" ? "" : mode }) });
    this.proposals = slider({ label: "Proposals", min: 5, max: 200, step: 5, value: 50,
      oninput: () => {}, onchange: (n) => app.go({ proposals: n === 50 ? "" : n }) });
    this.ensemble = toggle({ label: "Ensemble with an FCN", checked: false, onchange: (on) => app.go({ ensemble: on ? 1 : "" }) });
    this.crf = toggle({ label: "Dense CRF", checked: false, onchange: (on) => app.go({ crf: on ? weights.crf : "" }) });
    const own = weights.presence_threshold;
    this.presence = slider({ label: "Class presence threshold", min: 0, max: 0.99, step: 0.01, value: own, show: (v) => v.toFixed(2),
      oninput: () => {}, onchange: (v) => app.go({ presence: v === own ? "" : v }) });
    this.options = h("details.options", { open: true }, h("summary", null, "Options"),
      this.mode.element, this.proposals.element, weights.ensemble && this.ensemble.element, this.crf.element, this.presence.element,
      h("p.small", null, "Classes that are nowhere as probable as the threshold are left out."));
  }

  /** @param {Record<string, string>} state */
  update(state) {
    this.state = state;
    this.mode.set(state.mode ?? "whole");
    this.proposals.set(Number(state.proposals ?? 50));
    this.proposals.element.hidden = state.mode !== "instance";
    this.ensemble.set(Boolean(state.ensemble));
    this.crf.set(Boolean(state.crf));
    this.presence.set(Number(state.presence ?? this.weights.presence_threshold));
    const image = this.app.image();
    if (!image) return;
    if (image !== this.image) {
      this.image = image;
      this.result = null;
      this.legend.clear();
      this.compare.clear();
      this.stage.show(image);
      this.summary.textContent = "";
      this.actions.replaceChildren();
    }
    const key = JSON.stringify(optionsOf(state));
    if (key !== this.result?.key) this.run();
    else this.working?.abort();
  }

  /** Whole images are quick, and come first where the result takes longer. @param {AbortSignal} signal */
  async segment(signal) {
    this.working = new AbortController();
    const own = AbortSignal.any([signal, this.working.signal]);
    const asked = optionsOf(this.state);
    const quick = Object.keys(asked).length ? [{}, asked] : [asked];
    this.work.hidden = false;
    try {
      for (const options of this.result ? [asked] : quick) {
        const facts = await this.compute(options, own);
        if (!facts || own.aborted) return;
        await this.show(facts, options, own);
      }
    } catch (error) {
      if (own.aborted) return;
      const { status, message } = /** @type {import("./api.js").Refused} */ (error);
      if (status === 0) return void setTimeout(this.run); // `ask` waits until the server is there
      this.app.say(message);
    } finally {
      if (!signal.aborted) this.work.hidden = true;
    }
  }

  /** The facts of a result; null if it was cancelled. @param {Record<string, any>} options @param {AbortSignal} signal */
  async compute(options, signal) {
    const say = (/** @type {string} */ text) => (this.doing.textContent = text);
    const instance = options.mode === "instance";
    say(instance ? "Looking for proposals" : "Segmenting");
    this.progress.hidden = true;
    const path = query(`/api/images/${this.image.id}/segment`, options);
    const answer = await json(path, { method: "POST", signal, waiting: say });
    if (answer.result) return answer.result;
    /** @type {number[][]} */
    let boxes = [];
    const facts = await follow(answer.job, {
      queued: ({ before }) => before && say(`${before} before this one`),
      boxes: (found) => (boxes = found),
      progress: ({ done, total, stage }) => {
        say(`${done} of ${total} ${stage.includes("crops") ? "proposals" : "steps"}`);
        Object.assign(this.progress, { max: total, value: done, hidden: false });
        this.stage.boxes(boxes.slice(0, done));
      },
    }, signal);
    this.stage.boxes([]);
    return facts;
  }

  /** @param {any} facts @param {Record<string, any>} options @param {AbortSignal} signal */
  async show(facts, options, signal) {
    const key = JSON.stringify(options);
    const shown = this.compare.results.get(key) ?? { ...facts, key, options, name: nameOf(options), image: this.image };
    await this.legend.show(shown, signal);
    if (signal.aborted) return;
    this.result = shown;
    this.compare.add(shown);
    this.describe(shown);
    await this.legend.load(shown, signal);
  }

  /** What was found, how, and what can be done with it. @param {any} facts */
  describe(facts) {
    const { options } = facts;
    const found = Object.keys(facts.labels).filter((name) => !isBackground(name));
    const { strongest } = facts;
    const nothing = strongest ? `Nothing found; the strongest class was ${strongest.name}, ${percent(strongest.probability)}. ` : "";
    const said = found.length ? `Found ${found.join(", ")}. ` : nothing;
    this.summary.replaceChildren(h("b", null, said), `${facts.seconds.toFixed(2)} s: ${facts.description}`);
    const stem = stemOf(this.image);
    this.actions.replaceChildren(
      menu("Save", FILES.map(([file, text, note]) => ({ text, note, href: query(`/api/results/${facts.id}/${file}`, { download: stem }) }))),
      copier("Copy as command", () => asCommand(this.weights.name, this.image, options), this.app.say),
      copier("Copy as Python", () => asPython(this.weights.name, this.image, options), this.app.say));
  }

  /** Cancel what is computed; the options return to those of the result that is shown. */
  stop() {
    if (this.work.hidden) return false;
    this.working?.abort();
    this.work.hidden = true;
    this.stage.boxes([]);
    this.app.say("Cancelled.");
    const { mode, proposals, preset, crf } = this.result?.options ?? {};
    this.app.go({ mode, proposals, ensemble: preset && 1, crf, presence: this.result?.options["presence-threshold"] });
    return true;
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    const { go } = this.app;
    switch (event.key) {
      case "w": return go({ mode: "" }), true;
      case "i": return this.weights.modes.includes("instance") && go({ mode: "instance" }), true;
      case "c": return go({ crf: this.state.crf ? "" : this.weights.crf }), true;
      case "e": return this.weights.ensemble && go({ ensemble: this.state.ensemble ? "" : 1 }), true;
      case "Escape": return this.stop();
      case "s": {
        const files = this.actions.querySelector("details");
        if (files) (files.open = true), files.querySelector("a").focus();
        return Boolean(files);
      }
      case "x": return this.compare.toggle(), true;
      default: return this.legend.press(event);
    }
  }

  unmount() {
    this.working?.abort();
  }
}

/** @type {import("./main.js").Page} */
export const page = {
  name: "segment",
  title: "Segment",
  key: "1",
  keys: [
    ["w  i", "whole image, instances"], ["e", "ensemble"], ["c", "dense CRF"], ["m", "mask on and off"], ["o  O", "opacity up and down"],
    ["[  ]", "class before and after"], ["h", "hide or show that class"], ["x", "compare"], ["← ↑ → ↓", "cursor in the image, with Shift in large steps"],
    ["s", "save"], ["Esc", "cancel"],
  ],
  mount: (root, state, app) => new Segment(root, state, app),
};
