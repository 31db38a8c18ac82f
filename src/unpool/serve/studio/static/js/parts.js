// Parts of pages: elements, sliders, choices, menus. Texts are set as text, never as HTML.

/**
 * An element. `tag` may have classes, as "p.small"; functions are listeners, `on` prefixed.
 * @param {string} tag
 * @param {Record<string, any> | null} [props]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function h(tag, props, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value == null || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2).toLowerCase(), value);
    else if (key === "style") Object.assign(element.style, value);
    else if (key in element && !key.includes("-") && key !== "list") /** @type {any} */ (element)[key] = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child || child === "").map((c) => c || ""));
  return element;
}

let count = 0;
/** An id that no other element has. */
export const uniqueId = (prefix = "part") => `${prefix}-${++count}`;

/**
 * A slider with its label and value.
 * @param {{label: string, min: number, max: number, step: number, value: number,
 *   show?: (value: number) => string, oninput: (value: number) => void, onchange?: (value: number) => void}} given
 */
export function slider({ label, min, max, step, value, show = String, oninput, onchange }) {
  const output = h("output", null, show(value));
  const id = uniqueId("slider");
  const input = h("input", { type: "range", id, min, max, step });
  const fill = () => input.style.setProperty("--at", `${(100 * (input.value - input.min)) / (input.max - input.min || 1)}%`);
  const set = (/** @type {number} */ v) => {
    input.value = v;
    output.textContent = show(Number(input.value));
    fill();
  };
  input.addEventListener("input", () => (set(input.value), oninput(Number(input.value))));
  if (onchange) input.addEventListener("change", () => onchange(Number(input.value)));
  set(value);
  const element = h("div.slider", null, h("label", { htmlFor: id }, label), output, input);
  return { element, input, set };
}

/**
 * One of a few, as a row of radio buttons.
 * @param {{label: string, options: [string, string][], value: string, onchange: (value: string) => void}} given
 */
export function choice({ label, options, value, onchange }) {
  const name = uniqueId("choice");
  const inputs = options.map(([key]) => h("input", { type: "radio", name, value: key, onchange: () => onchange(key) }));
  const set = (/** @type {string} */ key) => inputs.forEach((input) => (input.checked = input.value === key));
  set(value);
  const rows = options.map(([, text], i) => h("label", null, inputs[i], h("span", null, text)));
  const element = h("fieldset.choice", null, h("legend", null, label), h("div", null, ...rows));
  return { element, inputs, set };
}

/**
 * One of many, as a menu.
 * @param {{label: string, options: [string, string][], value: string, onchange: (value: string) => void}} given
 */
export function select({ label, options, value, onchange }) {
  const id = uniqueId("select");
  const input = h("select", { id, onchange: () => onchange(input.value) });
  const fill = (/** @type {[string, string][]} */ rows, /** @type {string} */ chosen) => {
    input.replaceChildren(...rows.map(([key, text]) => h("option", { value: key }, text)));
    input.value = chosen;
  };
  fill(options, value);
  const set = (/** @type {string} */ key) => void (input.value = key);
  return { element: h("div.field", null, h("label", { htmlFor: id }, label), input), input, set, fill };
}

/** A box to tick. @param {{label: string, checked: boolean, onchange: (checked: boolean) => void}} given */
export function toggle({ label, checked, onchange }) {
  const input = h("input", { type: "checkbox", checked, onchange: () => onchange(input.checked) });
  const element = h("label.toggle", null, input, h("span", null, label));
  return { element, input, set: (/** @type {boolean} */ on) => void (input.checked = on) };
}

/**
 * Links to files behind a button.
 * @param {string} label @param {{text: string, note?: string, href: string, name?: string}[]} files
 */
export function menu(label, files) {
  const links = files.map(({ text, note, href, name }) =>
    h("a", { href, download: name ?? "" }, h("b", null, text), note && h("small", null, note)),
  );
  const element = h("details.menu", null, h("summary.button", null, label), h("div", null, ...links));
  element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape" || !element.open) return;
    element.open = false;
    element.firstChild.focus();
    event.stopPropagation();
  });
  const leave = (/** @type {Event} */ event) => {
    if (event.type === "keyup" && /** @type {KeyboardEvent} */ (event).key !== "Tab") return;
    if (!element.contains(/** @type {Node} */ (event.target))) element.open = false;
  };
  element.addEventListener("toggle", () => {
    const { top, bottom } = element.getBoundingClientRect();
    element.classList.toggle("up", bottom > innerHeight - 380 && top > 380);
    for (const kind of ["click", "keyup"]) {
      if (element.open) document.addEventListener(kind, leave);
      else document.removeEventListener(kind, leave);
    }
  });
  return element;
}

/** A sign that something is going on, which appears after 150 ms. */
export function spinner(text = "") {
  return h("span.spinner", null, h("i", { "aria-hidden": "true" }), text);
}

/** Copies a text when pressed. @param {string} label @param {() => string} text @param {(said: string) => void} say */
export function copier(label, text, say) {
  return h("button.quiet", { type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text());
      say("Copied.");
    } catch {
      say(text()); // the clipboard may be forbidden; the text can be selected then
    }
  } }, label);
}

/** A number in a few characters: 0.123, 12.3, 1234. */
export const short = (/** @type {number} */ value) => String(Number(value.toPrecision(3)));

/** A fraction in percent: 29 %, 0.4 %. */
export const percent = (/** @type {number} */ value) =>
  `${value >= 0.1 || !value ? Math.round(100 * value) : Number((100 * value).toPrecision(1))} %`;
