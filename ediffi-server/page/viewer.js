// The picture that is looked at: a preview while it is drawn, then the result and what can be done with it.

import * as api from "./api.js";
import { byId, h, icon, showProblems } from "./dom.js";
import { fileName } from "./files.js";

const shown = byId("shown");
let acts = {};

/** What is shown: { prompt, seed, slots: [{ url, item }], at }. An item is a finished picture of the gallery. */
let now = { prompt: "", seed: "0", slots: [], at: 0 };

const urls = new Map();

/** A URL of a finished picture for `img`; it is fetched once. */
export function urlOf(item) {
  if (!urls.has(item.url)) {
    const loading = api.picture(item.url).then((blob) => ({ blob, url: URL.createObjectURL(blob) }));
    loading.catch(() => urls.delete(item.url));
    urls.set(item.url, loading);
  }
  return urls.get(item.url);
}

/** Lets go of a picture that was deleted. */
export async function forget(item) {
  const loading = urls.get(item.url);
  urls.delete(item.url);
  if (loading) URL.revokeObjectURL((await loading).url);
}

/** Sets what the buttons do: { start, inpaint, restore, remove }, functions of an item. */
export const onActions = (given) => { acts = given; };

/** Begins to look at pictures that are drawn now. */
export function expect(prompt, seed, count) {
  now = { prompt, seed, slots: Array.from({ length: count }, () => ({ url: null, item: null })), at: 0 };
  show();
}

/** Looks at nothing. */
export const clear = () => expect("", "0", 0);

/** A preview has come. */
export function preview({ index, data_url: url }) {
  const slot = now.slots[index];
  if (!slot || slot.item) return;
  slot.url = url;
  show();
}

/** A finished picture has come. */
export async function finished(item) {
  const slots = now.slots;
  const { url } = await urlOf(item);
  if (slots !== now.slots || !slots[item.index]) return;
  slots[item.index] = { url, item };
  show();
}

/** Looks at a picture of the gallery. */
export async function look(item) {
  const { url } = await urlOf(item);
  now = { prompt: item.prompt, seed: item.seed, slots: [{ url, item }], at: 0 };
  show();
}

/** The finished picture that is looked at, or `null`. */
export const looked = () => now.slots[now.at]?.item ?? null;

/** A URL of the picture that is looked at, or `null`. */
export const lookedUrl = () => now.slots[now.at]?.url ?? null;

function show() {
  const slot = now.slots[now.at];
  const url = slot?.url ?? null;
  shown.hidden = url === null;
  if (url !== null) shown.src = url;
  shown.alt = url === null ? "" : slot.item ? `Drawn: ${now.prompt || "no words"}` : `Preview of: ${now.prompt || "no words"}`;
  shown.classList.toggle("preview", Boolean(url && !slot.item));
  byId("picture-empty").hidden = url !== null;
  byId("picture-empty").textContent = now.slots.length > 0 ? "The first preview is on its way." : "The picture comes here.";
  showSiblings();
  showActions(slot?.item ?? null, url);
  byId("under-field").hidden = url === null;
  document.dispatchEvent(new Event("looked"));
}

function showSiblings() {
  const many = now.slots.length > 1 ? now.slots : [];
  byId("siblings").replaceChildren(...many.map(({ url }, at) => h("button", {
    type: "button", class: "sibling", "aria-pressed": String(at === now.at), "aria-label": `Picture ${at + 1} of ${many.length}`,
    onclick: () => { now.at = at; show(); },
  }, url ? h("img", { src: url, alt: "" }) : "")));
}

let actionsOf = null;

function showActions(item, url) {
  if (item === actionsOf) return;
  actionsOf = item;
  const place = byId("actions");
  if (!item) return place.replaceChildren();
  const action = (name, symbol, label, title) =>
    h("button", { type: "button", class: "quiet small", title, onclick: () => attempt(() => acts[name](item)) }, icon(symbol), label);
  return place.replaceChildren(
    h("a", { class: "button quiet small", href: url, download: fileName(item.prompt, item.seed), title: "A PNG file that holds the whole request" }, icon("download"), "Download"),
    action("inpaint", "inpaint", "Inpaint", "Paint what shall be drawn anew"),
    action("start", "image", "Use as start", "Image to image"),
    action("restore", "restore", "Settings", "Everything as it was for this picture"),
    action("remove", "trash", "Delete", "Delete it on the server, with the others of its job"));
}

/** Does something, and says at the top of the page what went wrong. */
export async function attempt(act) {
  try {
    showProblems(byId("notice"), []);
    await act();
  } catch (error) {
    showProblems(byId("notice"), error.problems ?? [error.message]);
  }
}
