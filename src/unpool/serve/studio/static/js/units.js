// Units of a layer: the strongest ones at a pixel, and the projection of one beside its patch.

import { json, latest, query } from "./api.js";
import { Stage } from "./canvas.js";
import { copier, h, menu, select, short, spinner, toggle, uniqueId } from "./parts.js";
import { projectionAsCommand, projectionAsPython } from "./snippets.js";

/** The last stage whose maps are large enough to point at. @param {import("./look.js").Inside} inside */
function usual({ stages, layers }) {
  const maps = layers.filter((layer) => layer.shape.length === 3);
  const ends = maps.filter((layer) => stages.includes(layer.name) && layer.shape[1] >= 8);
  return (ends.at(-1) ?? maps.at(-1) ?? layers[0]).name;
}

const figure = (/** @type {string} */ caption) => {
  const image = h("img", { alt: "" });
  return { image, element: h("figure.part", null, image, h("figcaption", null, caption)) };
};

export class Units {
  /** @param {import("./look.js").Inside} inside @param {import("./main.js").App} app */
  constructor(inside, app) {
    Object.assign(this, { inside, app });
    /** @type {any} the strongest units at the cross, and the projection, as the server gave them */
    this.found = this.shown = null;
    this.canvas = new Stage("What the network sees of the image. Arrow keys move a cross; Enter projects the strongest unit there.");
    this.canvas.element.addEventListener("click", (/** @type {MouseEvent} */ event) => this.point(this.canvas.toPixel(event)));
    this.canvas.element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.steer(event));
    this.list = h("ul.units", { "aria-label": "Strongest units at the cross" });
    this.where = h("p.small");
    this.patch = figure("What the unit sees");
    this.signal = figure("What excites it there");
    this.said = h("p.summary");
    this.busy = h("div.over", { hidden: true }, spinner());
    this.actions = h("div.actions");
    this.top = h("figure.top", { hidden: true }, h("img"), h("figcaption", null, "Its nine strongest patches of the gallery, beside their projections"));
    this.stage = [
      h("div.inside", null,
        h("figure", null, this.canvas.element, h("figcaption", null, "What the network sees: click a pixel")),
        this.patch.element, this.signal.element, this.busy),
      h("h2", null, "Strongest units here"), this.list, this.where, this.said, this.actions, this.top,
    ];
    this.controls();
    this.look = latest((signal) => this.units(signal));
    this.run = latest((signal) => this.project(signal));
  }

  controls() {
    const { inside, app } = this;
    const rows = inside.layers.map(({ name, shape }) => /** @type {[string, string]} */ ([name, `${name} (${shape[0]})`]));
    this.layer = select({ label: "Layer", options: rows, value: "", onchange: (layer) => app.go({ layer, unit: "" }) });
    const ends = h("optgroup", { label: "Ends of stages" });
    for (const name of inside.stages) ends.append(h("option", { value: name }, rows.find((row) => row[0] === name)?.[1] ?? name));
    const all = h("optgroup", { label: "All layers" });
    all.append(...[...this.layer.input.children].filter((option) => !inside.stages.includes(option.value)));
    this.layer.input.replaceChildren(ends, all);
    const id = uniqueId("unit");
    this.unit = h("input", { type: "number", id, min: 0, step: 1, onchange: () => this.unit.value !== "" && app.go({ unit: this.unit.value }) });
    this.rule = select({ label: "Rule", options: inside.rules.map((rule) => [rule, rule]), value: "", onchange: (rule) => app.go({ rule: rule === inside.rules[0] ? "" : rule }) });
    this.from = select({ label: "Starts from", options: [["activation", "the activation"], ["one", "one"]], value: "", onchange: (from) => app.go({ from: from === "activation" ? "" : from }) });
    this.max = toggle({ label: "Where the unit is strongest", checked: false, onchange: (on) => app.go({ place: on ? "max" : "" }) });
    this.options = [this.layer.element, h("div.field", null, h("label", { htmlFor: id }, "Unit"), this.unit), this.max.element, this.rule.element, this.from.element];
    this.notes = [h("div.caution", null, h("h2", null, "Read with care"),
      h("p", null, "A projection shows which structure of this image made the unit respond, not what the unit prefers in general. Mid-gray is zero; each image has its own contrast."),
      h("p", null, "Much of it comes from the image, through the switches, and less from the unit: units of a random network give crisp projections, too."),
      h("p", null, "The rule guided looks cleaner but is not more selective. A negative activation is sent with its sign, and shows evidence against the unit; from one, the evidence for it."))];
  }

  /** @param {Record<string, string>} state @param {import("./images.js").Image} image */
  update(state, image) {
    this.state = state;
    const { side } = this.inside;
    if (image !== this.image) {
      this.image = image;
      this.found = this.shown = null;
      this.canvas.show({ ...image, width: side, height: side, url: `/api/images/${image.id}/square.png` });
    }
    const layer = this.inside.layers.some(({ name }) => name === state.layer) ? state.layer : usual(this.inside);
    const { shape } = /** @type {any} */ (this.inside.layers.find(({ name }) => name === layer));
    this.layer.set(layer);
    this.unit.max = shape[0] - 1;
    this.rule.set(state.rule ?? this.inside.rules[0]);
    this.from.set(state.from ?? "activation");
    this.max.set(state.place === "max");
    const [x, y] = (state.at ?? "").split(",").map(Number);
    const at = state.at && x >= 0 && y >= 0 && x < side && y < side ? { x: Math.floor(x), y: Math.floor(y) } : null;
    if (at?.x !== this.canvas.cursor?.x || at?.y !== this.canvas.cursor?.y) this.canvas.point(at);
    this.asked = { layer, ...at };
    this.look();
  }

  /** The strongest units, and then the projection. @param {AbortSignal} signal */
  async units(signal) {
    const key = JSON.stringify([this.image.id, this.asked]);
    if (this.found?.key !== key) {
      const timer = setTimeout(() => this.list.classList.add("old"), 150);
      try {
        const found = await this.post("units", this.asked, signal);
        this.found = { ...found, key };
      } catch (error) {
        return void (signal.aborted || this.app.say(/** @type {Error} */ (error).message));
      } finally {
        clearTimeout(timer);
        this.list.classList.remove("old");
      }
      this.draw();
    }
    this.choose();
    this.run();
  }

  /** The list of units, each with its map. */
  draw() {
    const { units, sheet, place, box, field, map } = this.found;
    this.list.replaceChildren(...units.map((/** @type {{unit: number, value: number}} */ { unit, value }, /** @type {number} */ i) => {
      const tile = h("i.tile", { "aria-hidden": "true" });
      if (sheet) Object.assign(tile.style, { backgroundImage: `url("${sheet}")`, backgroundPosition: `${units.length > 1 ? (100 * i) / (units.length - 1) : 0}% 0`, backgroundSize: `${100 * units.length}% 100%` });
      return h("li", null, h("button.unit", { type: "button", "data-unit": unit, onclick: () => this.app.go({ unit, place: "" }) },
        sheet && tile, h("b", null, String(unit)), h("small.number", null, short(value))));
    }));
    this.where.textContent = place
      ? `Row ${place[0]}, column ${place[1]} of maps of ${map.join(" × ")}; a unit sees ${field >= this.inside.side ? "the whole square" : `${field} pixels`}.`
      : "A layer without maps: its units see the whole square.";
    this.canvas.boxes(box && field < this.inside.side ? [box] : [], "field");
  }

  /** Mark the chosen unit. */
  choose() {
    this.chosen = Number(this.state.unit ?? this.found.units[0]?.unit ?? 0);
    this.unit.value = this.chosen;
    for (const button of this.list.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(Number(button.dataset.unit) === this.chosen));
  }

  /** @param {AbortSignal} signal */
  async project(signal) {
    const { place, layer } = this.found;
    const { rule, from } = this.state;
    const asked = { layer, unit: this.chosen, place: place && (this.state.place === "max" ? "max" : place.join(",")), rule, from };
    const key = JSON.stringify([this.image.id, asked]);
    if (key === this.shown?.key) return;
    this.busy.hidden = false;
    try {
      const facts = await this.post("project", asked, signal);
      if (signal.aborted) return;
      this.shown = { ...facts, key };
      await this.show(facts, asked);
    } catch (error) {
      if (!signal.aborted) this.app.say(/** @type {Error} */ (error).message);
    } finally {
      if (!signal.aborted) this.busy.hidden = true;
    }
  }

  /** @param {any} facts @param {Record<string, any>} asked */
  async show(facts, asked) {
    const { unit, layer, value, place } = facts;
    this.patch.image.src = facts.patch;
    this.signal.image.src = facts.projection;
    this.patch.image.alt = `The part of the image that unit ${unit} sees`;
    this.signal.image.alt = `The projection of unit ${unit} of ${layer}`;
    if (facts.box) this.canvas.boxes([facts.box], "field");
    const at = place ? ` at row ${place[0]}, column ${place[1]}` : "";
    this.said.replaceChildren(h("b", null, `Unit ${unit} of ${layer}`), `Activation ${short(value)}${at}; rule ${asked.rule ?? this.inside.rules[0]}`);
    const stem = `${(this.image.name || "image").replace(/\.[^.]*$/, "")}.${layer}.${unit}`;
    this.top.hidden = !facts.top;
    if (facts.top) Object.assign(this.top.firstChild, { src: query("/api/top.png", { layer, unit }), alt: `The strongest patches of unit ${unit}` });
    const own = this.app.about.model ? { torchModel: this.inside.model } : { weights: this.inside.model };
    this.actions.replaceChildren(
      menu("Save", [
        { text: "Projection", note: "PNG of the whole square", href: facts.image, name: `${stem}.png` },
        { text: "Projection", note: "only what the unit sees", href: facts.projection, name: `${stem}.field.png` },
        { text: "Patch", note: "the same part of the image", href: facts.patch, name: `${stem}.patch.png` },
      ]),
      copier("Copy as command", () => projectionAsCommand(own, this.image, asked), this.app.say),
      copier("Copy as Python", () => projectionAsPython(own, this.image, asked), this.app.say));
  }

  /** @param {string} what @param {Record<string, any>} asked @param {AbortSignal} signal */
  post(what, asked, signal) {
    return json(query(`/api/images/${this.image.id}/${what}`, asked), { method: "POST", signal, waiting: this.app.say });
  }

  /** Look at another pixel. @param {{x: number, y: number} | null} at */
  point(at) {
    clearTimeout(this.timer);
    if (at) this.app.go({ at: `${at.x},${at.y}`, unit: "", place: "" });
  }

  /** Keys on the image. @param {KeyboardEvent} event */
  steer(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") this.point(this.canvas.cursor ?? { x: this.inside.side >> 1, y: this.inside.side >> 1 });
    else if (this.canvas.steer(event)) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.point(this.canvas.cursor), 300); // the address follows when it stops
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (step && this.found) {
      const units = this.found.units.map((/** @type {any} */ one) => one.unit);
      const next = units[(units.indexOf(this.chosen) + step + units.length) % units.length];
      this.app.go({ unit: next });
      /** @type {HTMLElement | null} */ (this.list.querySelector(`[data-unit="${next}"]`))?.focus();
      return true;
    }
    if (event.key === "l") return this.layer.input.focus(), true;
    if (event.key === "r") {
      const { rules } = this.inside;
      const rule = rules[(rules.indexOf(this.state.rule ?? rules[0]) + 1) % rules.length];
      return this.app.go({ rule: rule === rules[0] ? "" : rule }), true;
    }
    return false;
  }

  unmount() {
    clearTimeout(this.timer);
  }
}
