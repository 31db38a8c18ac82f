// What is asked of the generator: the state of the page Draw as requests, commands and Python.

/** @typedef {Record<string, string>} State */

const round = (/** @type {number} */ value) => Number(value.toFixed(4));

export const FRAMES = 36;
/** What the address leaves out. */
export const DEFAULTS = { from: "2", to: "1", minus: "1", plus: "0", blend: "0", azimuth: "30", elevation: "20" };

/** Keep the styles below their number. @param {number} count */
export function bound(count) {
  for (const slot of /** @type {const} */ (["from", "to", "minus", "plus"])) DEFAULTS[slot] = String(Math.min(Number(DEFAULTS[slot]), count - 1));
}

/** The styles with their fractions, those of 0 left out. @param {State} state @returns {[string, number][]} */
export function fractions(state) {
  const { from, to, minus, plus, blend, sum } = { ...DEFAULTS, ...state };
  const parts = sum ? [[from, 1], [minus, -1], [plus, 1]] : [[from, round(1 - Number(blend))], [to, round(Number(blend))]];
  const total = new Map();
  for (const [style, part] of parts) total.set(style, (total.get(style) ?? 0) + part);
  const found = [...total].filter(([, part]) => part);
  return found.length ? found : [[from, 1]];
}

/** A style as the command line takes it: 3, or 0=0.5,1=0.5. @param {State} state */
export function styleOf(state) {
  const parts = fractions(state);
  if (parts.length === 1 && parts[0][1] === 1) return parts[0][0];
  return parts.map(([style, part]) => `${style}=${part}`).join(",");
}

/** The transformations that are not zero. @param {State} state @param {string[]} names @returns {[string, string][]} */
export const changesOf = (state, names) => names.filter((name) => Number(state[name])).map((name) => [name, state[name]]);

/** @param {string[]} names of the transformations @param {State} state */
function changed(names, state) {
  return changesOf(state, names).map(([name, amount]) => ["change", `${name}=${amount}`]);
}

/** The options of a view, a turn or a morph, by name, in order. @param {"view" | "turn" | "morph"} kind */
export function options(kind, /** @type {State} */ state, /** @type {string[]} */ names) {
  const { azimuth, elevation, from, to } = { ...DEFAULTS, ...state };
  const style = kind === "morph" ? [["from", from], ["to", to]] : [["style", styleOf(state)]];
  const around = kind === "turn" ? [] : [["azimuth", azimuth]];
  return [...style, ...around, ["elevation", elevation], ...changed(names, state)];
}

/** @param {string} path @param {string[][]} given */
export const request = (path, given) => `${path}?${new URLSearchParams(given)}`;

/** The commands for what is shown, and for the film strip. @param {string} weights */
export function asCommand(weights, /** @type {State} */ state, /** @type {string[]} */ names, /** @type {"turn" | "morph"} */ film) {
  const own = weights === "chairs" ? [] : [["weights", weights]];
  const line = (/** @type {string} */ name, /** @type {string[][]} */ given, /** @type {string} */ file) =>
    ["unpool generate", name, ...[...given, ...own].map(([key, value]) => `--${key} ${value}`), "-o", file].join(" ");
  if (state.unit) return line("unit", [["layer", state.layer], ["unit", state.unit]], "unit.png");
  const count = [["count", String(FRAMES)]];
  return [
    line("view", options("view", state, names), "chair.png"),
    line(film === "turn" ? "interpolate" : "morph", [...options(film, state, names), ...count], `${film}.gif`),
  ].join("\n");
}

/** The same in Python. @param {string} weights */
export function asPython(weights, /** @type {State} */ state, /** @type {string[]} */ names, /** @type {"turn" | "morph"} */ film) {
  const load = `generator = Generator.from_pretrained(${JSON.stringify(weights)})`;
  if (state.unit) {
    return `from unpool import Generator\nfrom unpool.generate import activate_units\n\n${load}\n` +
      `activate_units(generator, ${JSON.stringify(state.layer)}, [${state.unit}]).save("unit.png")\n`;
  }
  const { azimuth, elevation, from, to } = { ...DEFAULTS, ...state };
  const parts = fractions(state);
  const style = parts.length === 1 && parts[0][1] === 1 ? parts[0][0] : `{${parts.map(([k, v]) => `${k}: ${v}`).join(", ")}}`;
  const changes = changesOf(state, names);
  const change = changes.length ? ", transformation=change" : "";
  const encoded = changes.map(([name, amount]) => `(${JSON.stringify(name)}, ${amount})`).join(", ");
  const turn = `turntable(generator, ${style}, ${elevation}, ${FRAMES}${change})`;
  const morph = `morph(generator, ${from}, ${to}, morph_fractions(${FRAMES}), azimuth=${azimuth}, elevation=${elevation}${change})`;
  return [
    "from unpool import Generator",
    `from unpool.generate import ${film === "turn" ? "turntable" : "morph, morph_fractions"}, write_animation`,
    ...(changes.length ? ["from unpool.generate.sequences import encode_changes"] : []),
    "", load,
    ...(changes.length ? [`change = encode_changes([${encoded}])`] : []),
    `generator.view(${style}, azimuth=${azimuth}, elevation=${elevation}${change}).save("chair.png")`,
    `images = [image.on() for image in ${film === "turn" ? turn : morph}]`,
    `write_animation("${film}.gif", images${film === "turn" ? "" : " + images[-2:0:-1]"})`, "",
  ].join("\n");
}
