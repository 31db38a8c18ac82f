// The page Draw: chairs by their style, view and transformation; turning, morphing, single units.

import { json, latest, oneAtATime } from "./api.js";
import { asCommand, asPython, bound, DEFAULTS, FRAMES, options, request, styleOf } from "./codes.js";
import { Controls } from "./controls.js";
import { choice, copier, h, menu, spinner } from "./parts.js";
import { fetchImage, put, Sheet } from "./sprites.js";

const SHOWN = 12; // frames of the film strip
const SETTLED = 500; // ms without a change, after which the film strip is drawn

class Draw {
  /** @param {HTMLElement} root @param {Record<string, string>} state @param {import("./main.js").App} app */
  constructor(root, state, app) {
    this.app = app;
    this.state = this.live = state;
    /** @type {any} */
    this.about = null;
    /** @type {Sheet | null} */
    this.sheet = null;
    this.sheetPath = this.drawn = "";
    this.canvas = h("canvas.drawn", { role: "img", "aria-label": "The drawn chair" });
    this.note = h("p.readout", { role: "note" });
    this.film = h("div.film", { role: "group", "aria-label": "Film strip" });
    this.kind = choice({ label: "Film strip", options: [["turn", "Turn"], ["morph", "Morph"]], value: "turn",
      onchange: (kind) => app.go({ film: kind === "turn" ? "" : kind }) });
    this.button = h("button.primary", { type: "button", onclick: () => this.play() }, "▶ Play");
    this.actions = h("div.actions");
    this.panel = h("section.panel", { "aria-label": "Styles, view and transformation" }, h("div", null, spinner("Loading the generator")));
    root.append(h("h1.hidden", null, "Draw"),
      h("section.stage.kept", { id: "stage", "aria-label": "Drawn" }, h("div.canvas.checkered", null, this.canvas), this.note,
        h("div.strip", null, this.button, this.kind.element, this.film), this.actions),
      this.panel);
    this.render = oneAtATime(() => this.render_());
    this.strip = latest((signal) => this.strip_(signal));
    this.start();
  }

  async start() {
    try {
      this.about = await json("/api/chairs", { waiting: this.app.say });
      bound(this.about.styles.length);
      this.controls = new Controls(this.about, {
        input: (patch) => this.show({ ...this.state, layer: "", unit: "", ...patch }),
        change: (patch) => this.app.go({ layer: "", unit: "", ...patch }),
        say: this.app.say,
      });
      this.panel.replaceChildren(...this.controls.elements);
      this.names = this.about.changes.map((/** @type {any} */ change) => change.name);
      this.update(this.state);
    } catch (error) {
      this.panel.replaceChildren(h("p", null, /** @type {Error} */ (error).message));
    }
  }

  /** @param {Record<string, string>} state */
  update(state) {
    this.state = state;
    if (!this.controls) return;
    this.controls.set(state);
    this.kind.set(this.filmOf(state));
    this.kind.inputs[1].disabled = Boolean(state.sum);
    this.show(state);
    this.offer();
  }

  filmOf(/** @type {Record<string, string>} */ state) {
    return state.film === "morph" && !state.sum ? "morph" : "turn";
  }

  /** Draw a state, also one that is not yet in the address: a slider is being moved. */
  show(/** @type {Record<string, string>} */ state) {
    this.stop();
    this.live = state;
    this.preview();
    this.render();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.strip(), SETTLED);
  }

  path(/** @type {"view" | "turn" | "morph"} */ kind, /** @type {string[][]} */ ...more) {
    const file = { view: "view.png", turn: "sheet.webp", morph: "sheet.webp" }[kind];
    return request(`${this.about.address}/${file}`, [...options(kind, this.live, this.names), ...more]);
  }

  /** The nearest frame of the sheet, if it shows the same: at once, and until the exact view is there. */
  preview() {
    const { sheet } = this;
    const kind = this.filmOf(this.live);
    if (!sheet?.facts.at || this.live.unit || this.sheetPath !== this.path(kind, ["frames", String(FRAMES)])) return;
    const { azimuth, blend } = { ...DEFAULTS, ...this.live };
    const wanted = kind === "turn" ? Number(azimuth) % 360 : 1 - Number(blend);
    const far = sheet.facts.at.map((at) => Math.abs(at - wanted)).map((d) => (kind === "turn" ? Math.min(d, 360 - d) : d));
    sheet.paint(this.canvas, far.indexOf(Math.min(...far)));
  }

  async render_() {
    const { live } = this;
    const path = live.unit
      ? request(`${this.about.address}/units.webp`, [["layer", live.layer], ["first", live.unit], ["count", "1"]])
      : this.path("view");
    if (path === this.drawn) return;
    try {
      const { bitmap, facts } = await fetchImage(path);
      if (this.gone || this.playing) return;
      if (live === this.live) this.drawn = path;
      put(this.canvas, bitmap);
      this.canvas.setAttribute("aria-label", live.unit ? `Unit ${live.unit} of ${live.layer}` : `Style ${styleOf(live)}`);
      this.note.textContent = live.unit
        ? `Unit ${live.unit} of ${live.layer} alone, with all others of its layer at zero.`
        : (facts.notes ?? []).map((/** @type {string} */ note) => `Beyond the training: ${note}.`).join(" ");
    } catch (error) {
      this.app.say(/** @type {Error} */ (error).message);
    }
  }

  /** Load the sheet, unless it is there. @param {AbortSignal} signal */
  async strip_(signal) {
    if (this.gone || this.live.unit) return;
    const kind = this.filmOf(this.live);
    const path = this.path(kind, ["frames", String(FRAMES)]);
    if (path === this.sheetPath) return;
    const sheet = await Sheet.load(path, signal);
    if (signal.aborted) return;
    this.sheet = sheet;
    this.sheetPath = path;
    const { at } = sheet.facts;
    const every = Array.from({ length: SHOWN }, (_, i) => Math.round((i * (kind === "turn" ? FRAMES : FRAMES - 1)) / (kind === "turn" ? SHOWN : SHOWN - 1)));
    this.film.replaceChildren(...sheet.buttons(every,
      (n) => (kind === "turn" ? `Azimuth ${Math.round(at?.[n] ?? 0)}` : `Blend ${(1 - (at?.[n] ?? 0)).toFixed(2)}`),
      (n) => this.app.go({ layer: "", unit: "", ...this.stateAt(kind, n) })));
  }

  /** The part of the state that a frame shows. @param {string} kind @param {number} n */
  stateAt(kind, n) {
    const at = this.sheet?.facts.at?.[n] ?? 0;
    return kind === "turn" ? { azimuth: Math.round(at) } : { blend: Number((1 - at).toFixed(2)) };
  }

  /** Play the sheet, or stop. */
  async play() {
    if (this.playing) {
      const { kind, n } = this.playing;
      this.stop();
      return this.app.go(this.stateAt(kind, n));
    }
    this.button.disabled = true;
    this.live = { ...this.live, layer: "", unit: "" };
    await this.strip().finally(() => (this.button.disabled = false));
    const kind = this.filmOf(this.live);
    const { sheet } = this;
    if (!sheet || this.gone || this.sheetPath !== this.path(kind, ["frames", String(FRAMES)])) return;
    this.note.textContent = "";
    const round = kind === "turn" ? FRAMES : 2 * (FRAMES - 1);
    let step = 0;
    this.playing = { kind, n: 0, timer: 0 };
    this.playing.timer = setInterval(() => {
      if (!this.playing) return;
      step = (step + 1) % round;
      const n = step < FRAMES ? step : round - step;
      this.playing.n = n;
      sheet.paint(this.canvas, n);
      this.controls?.set({ ...this.live, ...this.stateAt(kind, n) });
    }, 1000 / 15);
    this.button.textContent = "◼ Stop";
  }

  stop() {
    if (!this.playing) return;
    clearInterval(this.playing.timer);
    this.playing = null;
    this.drawn = "";
    this.button.textContent = "▶ Play";
  }

  /** Files to save, and the same elsewhere. */
  offer() {
    const { state, about, names } = this;
    const kind = this.filmOf(state);
    const file = (/** @type {string} */ name, /** @type {string[][]} */ given) => request(`${about.address}/${name}`, given);
    const film = (/** @type {"turn" | "morph"} */ which) =>
      ({ text: `${which === "turn" ? "Turn" : "Morph"}, GIF`, note: `${FRAMES} frames`, name: `${which}.gif`,
        href: file("film.gif", [...options(which, state, names), ["frames", String(FRAMES)]]) });
    const view = options("view", state, names);
    const files = state.unit
      ? [{ text: "Unit", note: "PNG", name: "unit.png", href: file("units.png", [["layer", state.layer], ["first", state.unit], ["count", "1"]]) }]
      : [
        { text: "Image", note: `PNG, ${about.side} × ${about.side}, transparent`, name: "chair.png", href: file("view.png", view) },
        { text: "Large image", note: `PNG, ${4 * about.side} × ${4 * about.side}`, name: "chair-large.png", href: file("view.png", [...view, ["scale", "4"]]) },
        film("turn"), ...(state.sum ? [] : [film("morph")]),
      ];
    this.actions.replaceChildren(menu("Save", files),
      copier("Copy as command", () => asCommand(about.name, state, names, kind), this.app.say),
      copier("Copy as Python", () => asPython(about.name, state, names, kind), this.app.say));
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    const { azimuth, elevation } = { ...DEFAULTS, ...this.live };
    const turn = (/** @type {number} */ by) => this.app.go({ azimuth: (Number(azimuth) + by + 360) % 360, unit: "", layer: "" });
    const lift = (/** @type {number} */ by) => this.app.go({ elevation: Number(elevation) + by, unit: "", layer: "" });
    switch (event.key) {
      case "p": return void this.play(), true;
      case "Escape": return this.playing ? (void this.play(), true) : false;
      case "ArrowLeft": return turn(-10), true;
      case "ArrowRight": return turn(10), true;
      case "ArrowUp": return lift(5), true;
      case "ArrowDown": return lift(-5), true;
      case "s": {
        const files = this.actions.querySelector("details");
        if (files) (files.open = true), files.querySelector("a").focus();
        return Boolean(files);
      }
      default: return false;
    }
  }

  unmount() {
    this.gone = true;
    this.stop();
    clearTimeout(this.timer);
  }
}

/** @type {import("./main.js").Page} */
export const page = {
  name: "draw",
  title: "Draw",
  key: "3",
  image: false,
  keys: [["← →", "turn"], ["↑ ↓", "higher, lower"], ["p", "play and stop"], ["s", "save"], ["Esc", "stop"]],
  mount: (root, state, app) => new Draw(root, state, app),
};
