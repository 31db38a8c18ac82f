// The image that the pages share: samples, images dropped, pasted or chosen, and the recent ones.

import { json, query, Refused } from "./api.js";
import { h, spinner } from "./parts.js";

/** @typedef {{id: string, width: number, height: number, name: string, url: string}} Image */

const known = (/** @type {any} */ facts) => ({ ...facts, url: `/api/images/${facts.id}/view.jpg` });

/** The tray: finds images, and says which one is to be shown. */
export class Tray {
  /**
   * @param {HTMLElement} root
   * @param {(image: Image) => void} choose called when the user chose an image
   * @param {(text: string) => void} say
   */
  constructor(root, choose, say) {
    this.choose = choose;
    this.say = say;
    /** @type {Image | null} */
    this.current = null;
    /** @type {Map<string, Image>} */
    this.images = new Map();
    /** @type {string[]} */
    this.recent = [];
    this.input = h("input", {
      type: "file", accept: "image/*,.tif,.tiff", id: "file",
      onchange: () => this.input.files[0] && this.open(this.input.files[0]),
    });
    this.zone = h("label.drop", null, this.input, h("b", null, "Drop, paste or choose"), h("small", null, "an image of your own"));
    this.busy = h("p.small", { hidden: true }, spinner("Opening"));
    this.samples = h("div.thumbs");
    this.own = h("div.thumbs");
    this.ownTitle = h("h2", { hidden: true }, "Recent");
    root.append(this.zone, this.busy, this.ownTitle, this.own, h("h2", null, "Samples"), this.samples,
      h("p.small.privacy", null, "Images are kept in memory for half an hour, and are never written to disk."));
    this.listen();
  }

  listen() {
    let depth = 0;
    const over = (/** @type {boolean} */ on) => document.documentElement.classList.toggle("dropping", on);
    addEventListener("dragenter", (event) => (event.preventDefault(), over(++depth > 0)));
    addEventListener("dragleave", () => over(--depth > 0));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      over((depth = 0) > 0);
      const file = event.dataTransfer?.files[0];
      if (file) this.open(file);
      else this.say("Nothing that could be opened was dropped; drop a file.");
    });
    addEventListener("paste", (event) => {
      const file = /** @type {ClipboardEvent} */ (event).clipboardData?.files[0];
      if (file) this.open(file);
    });
  }

  /** Load the samples. */
  async start() {
    for (const facts of await json("/api/samples")) this.images.set(facts.id, known(facts));
    this.sampleIds = [...this.images.keys()];
    this.draw();
  }

  /** The image of an id, else null if it is not kept any more. @param {string} id */
  async find(id) {
    if (!this.images.has(id)) {
      try {
        this.remember(known(await json(`/api/images/${encodeURIComponent(id)}`)));
      } catch (error) {
        if (error instanceof Refused && error.status === 404) return null;
        throw error;
      }
    }
    return this.images.get(id) ?? null;
  }

  /** Mark an image as the current one. @param {Image} image */
  show(image) {
    this.current = image;
    this.draw();
  }

  /** Send a file to the server, and choose it. @param {File} file */
  async open(file) {
    this.busy.hidden = false;
    try {
      const path = query("/api/images", { name: file.name });
      const image = known(await json(path, { method: "POST", body: file, headers: { "content-type": file.type || "application/octet-stream" }, waiting: this.say }));
      this.remember(image);
      this.choose(image);
    } catch (error) {
      this.say(/** @type {Error} */ (error).message);
    } finally {
      this.busy.hidden = true;
      this.input.value = "";
    }
  }

  /** @param {Image} image */
  remember(image) {
    this.images.set(image.id, image);
    this.recent = [image.id, ...this.recent].slice(0, 8);
    this.draw();
  }

  draw() {
    const thumb = (/** @type {string} */ id) => {
      const image = /** @type {Image} */ (this.images.get(id));
      const chosen = this.current?.id === id;
      return h("button.thumb", {
        type: "button", "aria-pressed": String(chosen), title: image.name, onclick: () => this.choose(image),
      }, h("img", { src: image.url, alt: image.name || "An image of yours", loading: "lazy" }));
    };
    const focused = document.activeElement?.getAttribute("title");
    this.samples.replaceChildren(...(this.sampleIds ?? []).map(thumb));
    this.own.replaceChildren(...this.recent.map(thumb));
    this.ownTitle.hidden = !this.recent.length;
    if (focused) for (const button of [...this.samples.children, ...this.own.children]) {
      if (/** @type {HTMLElement} */ (button).title === focused) return void /** @type {HTMLElement} */ (button).focus();
    }
  }
}
