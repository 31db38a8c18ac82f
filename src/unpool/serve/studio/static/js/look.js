// The page Look inside: what excites the units of a network, and how its decoder builds the output.

import { json } from "./api.js";
import { Decoder } from "./decoder.js";
import { choice, h, spinner } from "./parts.js";
import { Units } from "./units.js";

/** @typedef {{model: string, side: number, classes: string[], decoder: boolean, rules: string[], stages: string[],
 *   layers: {name: string, kind: string, shape: number[]}[]}} Inside */

class Look {
  /** @param {HTMLElement} root @param {Record<string, string>} state @param {import("./main.js").App} app */
  constructor(root, state, app) {
    Object.assign(this, { root, state, app });
    /** @type {Units | Decoder | null} */
    this.view = null;
    this.shown = "";
    root.append(h("h1.hidden", null, "Look inside"), h("p", { id: "stage" }, spinner("Looking for layers")));
    this.start();
  }

  async start() {
    try {
      /** @type {Inside} */
      this.inside = await json("/api/layers", { waiting: this.app.say });
      if (!this.gone) this.update(this.state);
    } catch (error) {
      this.app.say(/** @type {Error} */ (error).message);
    }
  }

  /** @param {Record<string, string>} state */
  update(state) {
    this.state = state;
    const image = this.app.image();
    if (!this.inside || !image) return;
    const name = state.view === "decoder" && this.inside.decoder ? "decoder" : "units";
    if (this.shown !== name) {
      this.view?.unmount();
      this.shown = name;
      this.view = new (name === "decoder" ? Decoder : Units)(this.inside, this.app);
      const views = choice({ label: "View", value: name, options: [["units", "Units"], ["decoder", "Decoder"]],
        onchange: (view) => this.app.go({ view: view === "units" ? "" : view }) });
      this.root.replaceChildren(h("h1.hidden", null, "Look inside"),
        h("section.stage.look", { id: "stage", "aria-label": name === "units" ? "Units" : "The decoder" }, ...this.view.stage),
        h("section.panel", { "aria-label": "Options" }, h("div.fields", null, this.inside.decoder && views.element, ...this.view.options), ...this.view.notes));
      if (this.focused) views.inputs.find((input) => input.checked)?.focus();
      this.focused = true;
    }
    this.view?.update(state, image);
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    if (event.key === "v" && this.inside?.decoder) return this.app.go({ view: this.shown === "units" ? "decoder" : "" }), true;
    return this.view?.press(event);
  }

  unmount() {
    this.gone = true;
    this.view?.unmount();
  }
}

/** @type {import("./main.js").Page} */
export const page = {
  name: "look",
  title: "Look inside",
  key: "2",
  keys: [
    ["← ↑ → ↓", "on the image: move the cross, with Shift in large steps; elsewhere: through the units or the maps"],
    ["Enter", "on the image: project the strongest unit there"], ["l", "choose the layer"], ["r", "next rule"],
    ["v", "units or decoder"], ["p", "play the decoder"], ["Esc", "stop playing"],
  ],
  mount: (root, state, app) => new Look(root, state, app),
};
