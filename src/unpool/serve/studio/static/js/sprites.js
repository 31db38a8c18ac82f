// Sprite sheets: images of one size in rows, painted one at a time.

import { ask } from "./api.js";
import { h } from "./parts.js";

/** What the server says about an image, with the image itself. @param {string} path @param {AbortSignal} [signal] */
export async function fetchImage(path, signal) {
  const answer = await ask(path, { signal });
  const facts = JSON.parse(answer.headers.get("x-unpool-facts") ?? "{}");
  return { facts, bitmap: await createImageBitmap(await answer.blob()) };
}

/** Images in rows. */
export class Sheet {
  /** @param {ImageBitmap} bitmap @param {{columns: number, frames?: number, units?: number[], at?: number[]}} facts */
  constructor(bitmap, facts) {
    this.bitmap = bitmap;
    this.facts = facts;
    this.count = facts.frames ?? facts.units?.length ?? 0;
    this.width = bitmap.width / facts.columns;
    this.height = bitmap.height / Math.ceil(this.count / facts.columns);
  }

  /** @param {string} path @param {AbortSignal} [signal] */
  static async load(path, signal) {
    const { bitmap, facts } = await fetchImage(path, signal);
    return new Sheet(bitmap, facts);
  }

  /** Paint image n onto a canvas of its size. @param {HTMLCanvasElement} canvas @param {number} n */
  paint(canvas, n) {
    const { width, height } = this;
    const [x, y] = [(n % this.facts.columns) * width, Math.floor(n / this.facts.columns) * height];
    put(canvas, this.bitmap, x, y, width, height);
  }

  /**
   * A button for each of some images.
   * @param {number[]} chosen @param {(n: number) => string} label @param {(n: number) => void} press
   */
  buttons(chosen, label, press) {
    return chosen.map((n) => {
      const canvas = h("canvas", { "aria-hidden": "true" });
      this.paint(canvas, n);
      return h("button.frame", { type: "button", "aria-label": label(n), title: label(n), "data-frame": n, onclick: () => press(n) }, canvas);
    });
  }
}

/** Paint a part of an image, by default the whole, onto a canvas of its size. @param {HTMLCanvasElement} canvas */
export function put(canvas, /** @type {ImageBitmap} */ bitmap, x = 0, y = 0, width = bitmap.width, height = bitmap.height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.clearRect(0, 0, width, height);
  context.drawImage(bitmap, x, y, width, height, 0, 0, width, height);
}
