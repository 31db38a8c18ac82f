// The page Results: a training run, or the output of a run over many images; read only.

import { json, latest, query } from "./api.js";
import { h, percent, select, short, slider, toggle } from "./parts.js";

const SVG = "http://www.w3.org/2000/svg";
const text = (/** @type {any} */ value) => (value == null ? "–" : typeof value === "number" ? short(value) : String(value));
const image = (/** @type {string} */ file, /** @type {string} */ name = "", small = false) =>
  query("/api/folder/image", { file, name, small: small ? "yes" : "" });

/** A curve as a figure. @param {string} name @param {[number, number][]} points */
function curve(name, points) {
  const values = points.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [points[0][0], points[points.length - 1][0]];
  const path = points.map(([n, v]) => `${(300 * (n - first)) / (last - first || 1)},${100 - (100 * (v - low)) / (high - low || 1)}`).join(" ");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "-2 -4 304 108");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${name}: from ${short(values[0])} to ${short(values[values.length - 1])}, between ${short(low)} and ${short(high)}`);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", path);
  svg.append(line);
  return h("figure.curve", null, h("figcaption", null, h("b", null, name), ` ${short(values[values.length - 1])}`), svg,
    h("p.small", null, `${short(low)} to ${short(high)}, steps ${first} to ${last}`));
}

class Results {
  /** @param {HTMLElement} root @param {Record<string, string>} state @param {import("./main.js").App} app */
  constructor(root, state, app) {
    this.app = app;
    this.state = state;
    this.main = h("section.results", { id: "stage", "aria-label": "Results" });
    this.panel = h("section.panel", { "aria-label": "Figures" });
    root.append(h("h1.hidden", null, "Results"), this.main, this.panel);
    this.list = latest((signal, first) => this.list_(signal, first));
    this.start();
  }

  async start() {
    try {
      this.about = await json("/api/folder");
      this.show();
    } catch (error) {
      this.main.replaceChildren(h("p", null, /** @type {Error} */ (error).message));
    }
  }

  show() {
    const { name, kind, facts, notes = [], classes, curves, plots } = this.about;
    const rows = Object.entries(facts).flatMap(([key, value]) => [h("dt", null, key.replaceAll("_", " ")), h("dd", null, text(value))]);
    const table = h("table", null, h("thead", null, h("tr", null, ...classes.columns.map((/** @type {string} */ c) => h("th", { scope: "col" }, c)))),
      h("tbody", null, ...classes.rows.map((/** @type {any[]} */ row) => h("tr", null, ...row.map((value, n) => (n ? h("td", null, text(value)) : h("th", { scope: "row" }, value)))))));
    this.panel.replaceChildren(h("div", null, h("h2", null, name), h("dl.facts", null, ...rows)),
      ...(classes.rows.length ? [h("div.table", { tabIndex: 0, role: "region", "aria-label": "Classes" }, table)] : []));
    if (kind === "images") return this.images(classes.rows.map((/** @type {any[]} */ row) => row[0]));
    this.main.replaceChildren(...notes.map((/** @type {string} */ note) => h("p.hint", null, note)),
      h("div.curves", null, ...Object.entries(curves).map(([key, points]) => curve(key, points))),
      ...plots.map((/** @type {string} */ file) => h("img.plot", { src: image(file), alt: file.replace(/^plots\/|\.png$/g, ""), loading: "lazy" })));
  }

  /** @param {string[]} names of the classes */
  images(names) {
    const { app } = this;
    this.label = select({ label: "Class", value: "", options: [["", "all"], ...names.map((name) => /** @type {[string, string]} */ ([name, name]))],
      onchange: (label) => app.go({ class: label }) });
    this.least = slider({ label: "Least fraction", min: 0, max: 1, step: 0.01, value: 0, show: percent, oninput: () => {},
      onchange: (least) => app.go({ least: least || "" }) });
    this.failed = toggle({ label: "Failures", checked: false, onchange: (on) => app.go({ failed: on ? 1 : "" }) });
    this.count = h("p.readout", { role: "note" });
    this.grid = h("ul.grid");
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.list(this.grid.childElementCount) }, "More");
    this.main.replaceChildren(h("div.filter", null, this.label.element, this.least.element, this.failed.element), this.count, this.grid, this.more);
    this.update(this.state);
  }

  /** @param {Record<string, string>} state */
  update(state) {
    this.state = state;
    if (!this.label) return;
    this.label.set(state.class ?? "");
    this.least.set(Number(state.least ?? 0));
    this.least.element.hidden = !state.class;
    this.failed.set(Boolean(state.failed));
    this.list(0);
  }

  /** @param {AbortSignal} signal @param {number} first */
  async list_(signal, first) {
    const { class: label, least, failed } = this.state;
    const found = await json(query("/api/folder/items", { class: label, least: label ? least : "", failed: failed ? "yes" : "", first }), { signal });
    this.count.textContent = `${found.total} ${failed ? "failed" : "images"}`;
    const items = found.items.map((/** @type {any} */ item) => this.item(item));
    if (first) this.grid.append(...items);
    else this.grid.replaceChildren(...items);
    this.more.hidden = this.grid.childElementCount >= found.total;
  }

  item(/** @type {any} */ { name, labels, files, error }) {
    if (error) return h("li.failure", null, h("b", null, name), h("p.small", null, error));
    const links = files.map((/** @type {string} */ file) => h("a", { href: image(file, name), target: "_blank" }, file.slice(name.length + 1)));
    return h("li", null, files.length && h("img", { src: image(files[0], name, true), alt: name, loading: "lazy" }), h("b", null, name),
      h("p.small", null, Object.entries(labels).map(([key, value]) => `${key} ${percent(Number(value))}`).join(", ")), h("p.small.links", null, ...links));
  }

  unmount() {}
}

/** @type {import("./main.js").Page} */
export const page = {
  name: "results", title: "Results", key: "5", image: false, keys: [],
  mount: (root, state, app) => new Results(root, state, app),
};
