// The shell: pages by address, the shared image, keys, the color scheme, help.

import { json } from "./api.js";
import { Tray } from "./images.js";
import { h } from "./parts.js";

/**
 * @typedef {{name: string, title: string, key: string, image?: boolean, keys?: [string, string][],
 *   mount: (root: HTMLElement, state: Record<string, string>, app: App) => Mounted}} Page
 * @typedef {{update: (state: Record<string, string>) => void, unmount: () => void,
 *   press?: (event: KeyboardEvent) => boolean | void}} Mounted
 * @typedef {{go: (patch: Record<string, any>) => void, say: (text: string) => void,
 *   image: () => import("./images.js").Image | null, about: any}} App
 */

/** The pages by name, each a module with `page`; a row here is all that a new one needs. */
const PAGES = [
  { name: "segment", title: "Segment" },
  { name: "look", title: "Look inside" },
  { name: "draw", title: "Draw" },
  { name: "restore", title: "Restore" },
  { name: "results", title: "Results" }, // only of a studio that was started with some
];

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @type {Map<string, Page>} */
const loaded = new Map();
/** @type {Mounted | null} */
let mounted = null;
let shown = "";

/** The page and the state that the address names. */
function address() {
  const [path, rest] = location.hash.replace(/^#\/?/, "").split("?");
  const name = PAGES.some((row) => row.name === path) ? path : PAGES[0].name;
  return { name, state: Object.fromEntries(new URLSearchParams(rest ?? "")) };
}

/** @type {App} */
const app = {
  about: null,
  image: () => tray.current,
  say(text) {
    $("status").textContent = text;
    for (const fading of $("status").getAnimations()) (fading.cancel(), fading.play());
  },
  /** Change the address; values that are null or empty are removed from it. */
  go(patch) {
    const { name, state } = address();
    const next = Object.entries({ ...state, ...patch }).filter(([, v]) => v !== "" && v != null);
    const hash = `#/${name}${next.length ? `?${new URLSearchParams(next)}` : ""}`;
    if (hash === location.hash) return;
    history.pushState(null, "", hash);
    show();
  },
};
const tray = new Tray($("tray"), (image) => app.go({ image: image.id }), app.say);

/** Show what the address names. */
async function show() {
  const { name, state } = address();
  if (!loaded.has(name)) loaded.set(name, (await import(`./${name}.js`)).page);
  const page = /** @type {Page} */ (loaded.get(name));
  if (address().name !== name) return; // another one was asked for meanwhile
  const usesImage = page.image !== false;
  $("shell").classList.toggle("alone", !usesImage);
  if (usesImage) {
    const first = tray.current?.id ?? tray.sampleIds?.[0];
    let image = state.image ? await tray.find(state.image) : null;
    if (state.image && !image) app.say("That image is not kept any more; here is a sample.");
    image ??= first ? await tray.find(first) : null;
    if (image && image !== tray.current) tray.show(image);
  }
  if (shown !== name) {
    mounted?.unmount();
    $("page").replaceChildren();
    shown = name;
    document.title = `${page.title} · unpool studio`;
    for (const link of $("pages").children) {
      if (link.getAttribute("data-page") === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    mounted = page.mount($("page"), state, app);
  } else mounted?.update(state);
}

/** Links to the pages; the image goes along. */
function links() {
  $("pages").append(...PAGES.map(({ name, title }, i) =>
    h("a", {
      href: `#/${name}`, "data-page": name, title: `${title} (${i + 1})`,
      onclick: (/** @type {Event} */ event) => (event.preventDefault(), visit(name)),
    }, title)));
}

function visit(/** @type {string} */ name) {
  const image = tray.current ? `?image=${encodeURIComponent(tray.current.id)}` : "";
  if (address().name !== name) location.hash = `#/${name}${image}`;
}

/** The color scheme: that of the system, until the button is pressed. */
function theme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = $("theme");
  let own = localStorage.getItem("theme");
  const apply = () => {
    const dark = own ? own === "dark" : system.matches;
    document.documentElement.style.colorScheme = own ?? "light dark";
    button.textContent = dark ? "☀" : "☾";
    button.title = dark ? "Light colors" : "Dark colors";
    button.setAttribute("aria-label", button.title);
  };
  button.addEventListener("click", () => {
    own = (own ? own === "dark" : system.matches) ? "light" : "dark";
    localStorage.setItem("theme", own);
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}

/** What the keys do, here and on the page. */
function help() {
  /** @type {[string, string][]} */
  const keys = [["?", "this help"], [PAGES.length > 1 ? `1 – ${PAGES.length}` : "1", "pages"], ...(loaded.get(shown)?.keys ?? [])];
  const rows = keys.flatMap(([key, what]) => [h("dt", null, h("kbd", null, key)), h("dd", null, what)]);
  const dialog = h("dialog", { "aria-labelledby": "help-title", onclose: () => dialog.remove() },
    h("h2", { id: "help-title" }, "Keys"), h("dl.keys", null, ...rows),
    h("p.small", null, "Every view has its own address: share it, or go back and forth."),
    h("form", { method: "dialog" }, h("button", null, "Close")));
  dialog.addEventListener("click", (/** @type {Event} */ event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

/** Keys, unless they are meant for a text or a control that uses them. */
function press(/** @type {KeyboardEvent} */ event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (target.matches("select, textarea, input:not([type=checkbox], [type=radio], [type=range], [type=file])")) return;
  const arrow = event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End";
  if (arrow && target.matches("input")) return;
  const row = PAGES[Number(event.key) - 1];
  if (event.key === "?") help();
  else if (row) visit(row.name);
  else if (!mounted?.press?.(event)) return;
  event.preventDefault();
}

async function start() {
  theme();
  $("help").addEventListener("click", help);
  $("skip").addEventListener("click", (event) => (event.preventDefault(), $("page").focus()));
  addEventListener("keydown", press);
  addEventListener("popstate", show);
  try {
    [app.about] = await Promise.all([json("/api/about"), tray.start()]);
    if (!app.about.results) PAGES.splice(PAGES.findIndex((row) => row.name === "results"), 1);
    links();
    await show();
  } catch (error) {
    app.say(/** @type {Error} */ (error).message);
  }
}

addEventListener("unhandledrejection", (event) => {
  app.say(event.reason?.message ?? "Something went wrong on this page.");
});
start();
