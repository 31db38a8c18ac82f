// The stage: a photo, class ids painted over it, outlines, boxes, a cursor; and one transform.

import { ask } from "./api.js";
import { h } from "./parts.js";

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {{width: number, height: number, data: Uint8Array}} Gray */

/** The values of a gray PNG, exactly. @param {string} url @returns {Promise<Gray>} */
export async function loadGray(url, signal = undefined) {
  const blob = await (await ask(url, { signal })).blob();
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("This browser cannot draw images.");
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height);
  for (let i = 0; i < data.length; i++) data[i] = rgba[4 * i];
  return { width, height, data };
}

/** Colors of ids as the 32-bit words of an ImageData. */
export class Palette {
  constructor() {
    this.words = new Uint32Array(256);
    this.bytes = new Uint8Array(this.words.buffer);
  }

  /** The colors of the files, or vivid ones that show on any photo. @param {{id: number, color: number[]}[]} classes */
  fill(classes, vivid = true) {
    for (const { id, color } of classes) this.bytes.set(vivid ? vividColor(id) : color, 4 * id);
    this.bytes.set([224, 224, 192], 4 * 255); // void
  }

  /** @param {number} id */
  hex(id) {
    return `#${[...this.bytes.subarray(4 * id, 4 * id + 3)].map((v) => v.toString(16).padStart(2, "0")).join("")}`;
  }

  /** @param {number} id @param {string} hex */
  recolor(id, hex) {
    const value = parseInt(hex.slice(1), 16);
    this.bytes.set([value >> 16, (value >> 8) & 255, value & 255], 4 * id);
  }

  /** How opaque an id is, 0 to 1. @param {number} id @param {number} alpha */
  fade(id, alpha) {
    this.bytes[4 * id + 3] = Math.round(255 * alpha);
  }
}

/** A color of even lightness; hues a golden angle apart are never close. @param {number} id */
function vividColor(id) {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  if (!context || !id) return [0, 0, 0];
  context.fillStyle = `oklch(0.7 0.2 ${(137.508 * id + 240) % 360})`;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.subarray(0, 3)];
}

/** Paint ids by a palette. @param {HTMLCanvasElement} canvas @param {Gray} ids @param {Palette} palette */
export function paint(canvas, ids, palette) {
  if (canvas.width !== ids.width || canvas.height !== ids.height)
    Object.assign(canvas, { width: ids.width, height: ids.height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(ids.width, ids.height);
  const words = new Uint32Array(image.data.buffer);
  const table = palette.words;
  const { data } = ids;
  for (let i = 0; i < data.length; i++) words[i] = table[data[i]];
  context.putImageData(image, 0, 0);
}

/**
 * Paint the outline of an id, white and dark next to it; none for -1.
 * @param {HTMLCanvasElement} canvas @param {Gray} ids @param {number} id
 */
export function outline(canvas, ids, id) {
  const { width, height, data } = ids;
  Object.assign(canvas, { width, height });
  if (id < 0) return;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const own = data[i];
      const left = x > 0 ? data[i - 1] : own, right = x < width - 1 ? data[i + 1] : own;
      const above = y > 0 ? data[i - width] : own, below = y < height - 1 ? data[i + width] : own;
      if (left === own && right === own && above === own && below === own) continue;
      if (own === id) words[i] = 0xffffffff;
      else if (left === id || right === id || above === id || below === id) words[i] = 0xc0000000;
    }
  }
  context.putImageData(image, 0, 0);
}

/** A photo and what lies over it. All layers have the size of the photo; `toPixel` is the transform. */
export class Stage {
  /** @param {string} label for those who do not see it */
  constructor(label) {
    this.photo = h("img", { alt: "", draggable: false });
    this.mask = h("canvas.layer", { "aria-hidden": "true" });
    this.other = h("canvas.layer", { "aria-hidden": "true", hidden: true });
    this.edges = h("canvas.layer", { "aria-hidden": "true" });
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("class", "layer");
    this.svg.setAttribute("aria-hidden", "true");
    this.element = h("div.canvas", { tabIndex: 0, role: "application", "aria-label": label },
      this.photo, this.mask, this.other, this.edges, this.svg);
    this.size = { width: 1, height: 1 };
    /** @type {{x: number, y: number} | null} */
    this.cursor = null;
  }

  /** Show a photo; what lay over the one before is removed. @param {import("./images.js").Image} image */
  show(image) {
    this.size = { width: image.width, height: image.height };
    this.photo.src = image.url;
    this.photo.alt = image.name || "The image";
    this.element.style.setProperty("--aspect", String(image.width / image.height));
    this.svg.setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
    this.clear();
  }

  clear() {
    for (const layer of [this.mask, this.other, this.edges]) Object.assign(layer, { width: 1, height: 1 });
    this.svg.replaceChildren();
    this.cursor = null;
  }

  /** The pixel of the image below a pointer, or null beside it. @param {{clientX: number, clientY: number}} event */
  toPixel(event) {
    const box = this.photo.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.size.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.size.height);
    return x >= 0 && y >= 0 && x < this.size.width && y < this.size.height ? { x, y } : null;
  }

  /** Move the cursor by keys; returns whether the key was one of them. @param {KeyboardEvent} event */
  steer(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (!move) return false;
    const { width, height } = this.size;
    const step = (event.shiftKey ? 0.1 : 0.01) * Math.max(width, height);
    const from = this.cursor ?? { x: width / 2, y: height / 2 };
    const clip = (/** @type {number} */ v, /** @type {number} */ most) => Math.round(Math.min(Math.max(v, 0), most - 1));
    this.point({ x: clip(from.x + step * move[0], width), y: clip(from.y + step * move[1], height) });
    return true;
  }

  /** Show a cross at a pixel; null for none. @param {{x: number, y: number} | null} at */
  point(at) {
    this.cursor = at;
    this.svg.querySelector(".cross")?.remove();
    if (!at) return;
    const { width, height } = this.size;
    const [x, y] = [at.x + 0.5, at.y + 0.5];
    const arm = 0.03 * Math.max(width, height);
    this.draw("path", "cross", { d: `M${x - arm} ${y}H${x + arm}M${x} ${y - arm}V${y + arm}` });
  }

  /** Add a shape in pixels of the image. @param {string} tag @param {string} kind @param {Record<string, any>} given */
  draw(tag, kind, given) {
    const shape = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries({ class: kind, ...given })) shape.setAttribute(key, String(value));
    this.svg.append(shape);
    return shape;
  }

  /** Show boxes, (x0, y0, x1, y1) each. @param {number[][]} boxes */
  boxes(boxes, kind = "box") {
    this.svg.querySelectorAll(`.${kind}`).forEach((shape) => shape.remove());
    for (const [x, y, x1, y1] of boxes) this.draw("rect", kind, { x, y, width: x1 - x, height: y1 - y });
  }
}
