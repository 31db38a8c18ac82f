// What is asked of a restoration: the state of the page Restore as a request, a command and Python.

import { START } from "./psf.js";
import { quoted } from "./snippets.js";

/** The value of each method that has one. */
export const VALUES = { wiener: "balance", tikhonov: "balance", tv: "lam", rl: "steps", "rl-fast": "steps" };

/** The options of a request. @param {Record<string, string>} state @returns {Record<string, any>} */
export function optionsOf(state) {
  const method = state.method ?? "auto";
  const value = VALUES[/** @type {"tv"} */ (method)];
  return {
    psf: state.psf ?? START,
    ...(method !== "auto" && { method }),
    ...(state.noise && { noise: Number(state.noise) }),
    ...(value && state[value] && { [value]: Number(state[value]) }),
    ...(state.gamma && { gamma: "srgb" }),
    ...(state.luma && { luma: true }),
  };
}

/** @param {string} name of the file @param {Record<string, any>} options */
export function asCommand(name, options) {
  const flags = Object.entries(options).map(([key, value]) => (value === true ? `--${key}` : `--${key} ${quoted(String(value))}`));
  return ["unpool restore", quoted(name), ...flags, "-o restored"].join(" ");
}

/** @param {string} name of the file @param {Record<string, any>} options @param {string} suffix of the result */
export function asPython(name, options, suffix) {
  const { psf, ...given } = options;
  const values = Object.entries(given).map(([key, value]) => `${key}=${value === true ? "True" : JSON.stringify(value)}`);
  const saved = `restored/${name.replace(/\.[^.]*$/, "")}${suffix}`;
  return `from unpool import Restorer\n\nrestorer = Restorer(${values.join(", ")})\n` +
    `result = restorer(${JSON.stringify(name)}, ${JSON.stringify(psf)})\nresult.save(${JSON.stringify(saved)})\n`;
}
