// The same result outside the studio: as a command, and in Python.

/** The options of a request from the state of the page. @param {Record<string, string>} state */
export function optionsOf(state) {
  /** @type {Record<string, any>} */
  const options = {};
  if (state.ensemble) options.preset = "edeconvnet";
  if (state.mode) options.mode = state.mode;
  else if (state.ensemble) options.mode = "whole"; // that of the ensemble is instance
  if (state.mode === "instance" && state.proposals) options.proposals = Number(state.proposals);
  if (state.crf) options.crf = state.crf;
  if (state.presence) options["presence-threshold"] = Number(state.presence);
  return options;
}

/** A short name of a result by its options. @param {Record<string, any>} options */
export function nameOf(options) {
  const { mode, proposals = 50, preset, crf, "presence-threshold": presence } = options;
  const kinds = { instance: `${proposals} proposals`, tiles: "tiles" };
  return [kinds[/** @type {keyof typeof kinds} */ (mode)] ?? "whole", preset && "ensemble", crf && "CRF",
    presence != null && `presence ${presence}`].filter(Boolean).join(" + ");
}

const fileName = (/** @type {import("./images.js").Image} */ image) =>
  /\.\w+$/.test(image.name) ? image.name : `${image.id.length < 20 ? image.id : "image"}.jpg`;

/** A text as a shell takes it. */
export const quoted = (/** @type {string} */ text) => (/^[\w.,:-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** @param {string} weights @param {import("./images.js").Image} image @param {Record<string, any>} options */
export function asCommand(weights, image, options) {
  const own = weights === "objects" ? [] : ["--weights", quoted(weights)];
  const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, quoted(String(value))]);
  return ["unpool segment", quoted(fileName(image)), "-o out", ...own, ...flags].join(" ");
}

/** @param {string} weights @param {import("./images.js").Image} image @param {Record<string, any>} options */
export function asPython(weights, image, options) {
  const { preset, ...given } = options;
  const load = [JSON.stringify(weights), ...(preset ? [`preset=${JSON.stringify(preset)}`] : [])].join(", ");
  const call = Object.entries(given).map(([name, value]) => `${name.replaceAll("-", "_")}=${JSON.stringify(value)}`);
  const name = fileName(image);
  return `import unpool\n\nsegmenter = unpool.load(${load})\n` +
    `result = segmenter(${[JSON.stringify(name), ...call].join(", ")})\n` +
    `result.save(${JSON.stringify(`out/${name.replace(/\.\w+$/, ".png")}`)})\n`;
}

/**
 * The options of a projection outside the studio, where the choice of the defaults is the same.
 * @param {{weights?: string, torchModel?: string}} own @param {import("./images.js").Image} image @param {Record<string, any>} asked
 */
export function projectionAsCommand({ weights, torchModel }, image, asked) {
  const model = torchModel ? ["--torch-model", quoted(torchModel)] : weights === "objects" ? [] : ["--weights", quoted(weights ?? "")];
  const flags = Object.entries(asked).flatMap(([name, value]) => (value == null ? [] : [`--${name}`, /^[\d,]+$/.test(value) ? String(value) : quoted(String(value))]));
  return ["unpool visualize project", quoted(fileName(image)), ...model, ...flags, "-o out"].join(" ");
}

/** @param {{weights?: string, torchModel?: string}} own @param {import("./images.js").Image} image @param {Record<string, any>} asked */
export function projectionAsPython({ weights, torchModel }, image, asked) {
  const { layer, unit, place, rule, from } = asked;
  const options = [`unit=${unit}`];
  if (place) options.push(`place=${place === "max" ? '"max"' : `(${place.replace(",", ", ")})`}`);
  if (rule) options.push(`rule=${JSON.stringify(rule)}`);
  if (from) options.push(`start=${JSON.stringify(from)}`);
  const [home, name] = (torchModel ?? "").split(":");
  const start = torchModel ? `import unpool\nfrom ${home} import ${name}\n\nmodel = ${name}()\n` : "import unpool\n\n";
  const model = torchModel ? "model" : JSON.stringify(weights);
  return `${start}found = unpool.project(${[model, JSON.stringify(fileName(image)), JSON.stringify(layer), ...options].join(", ")})\n` +
    `found.save(${JSON.stringify(`unit${unit}.png`)})\n`;
}
