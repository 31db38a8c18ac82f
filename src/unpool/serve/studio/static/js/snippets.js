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
