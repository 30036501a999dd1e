// Pictures to go by: the one to start from, and those whose style is taken.

import { byId, h, icon, iconButton } from "./dom.js";
import { history, redrawLayer } from "./history.js";
import { fitSheet, openFor } from "./open.js";
import { defaultStrength } from "./request.js";
import { settings } from "./settings.js";

const start = byId("start");
const style = byId("style");

/** A button that asks for a picture, and is a place to drop one. */
const empty = (kind, text) =>
  h("button", { type: "button", class: "source-empty", "data-kind": kind, onclick: () => openFor(kind) }, icon("plus"), text);

function slider(label, value, most, oninput) {
  const output = h("output", {}, value.toFixed(2));
  const input = h("input", {
    type: "range", min: 0, max: most, step: 0.05, value: String(value), "aria-label": label,
    oninput: (event) => { output.textContent = Number(event.target.value).toFixed(2); oninput(Number(event.target.value)); },
  });
  const element = h("label", { class: "slider full" }, h("span", {}, label), input, output);
  const show = (now) => {
    input.value = now;
    output.textContent = now.toFixed(2);
  };
  show(value);
  return { element, show };
}

function removeEdit() {
  const layers = history.now.layers.filter(({ kind }) => kind !== "redraw");
  history.commit({ edit: null, layers, current: layers.at(-1)?.id ?? null });
  fitSheet();
}

let startShown = null;
let startSlider = null;
function showStart() {
  const { edit, layers } = history.now;
  const inpaint = layers.some(({ kind }) => kind === "redraw");
  const state = JSON.stringify([edit?.url, inpaint]);
  if (state === startShown) {
    if (edit) startSlider.show(edit.strength ?? defaultStrength());
    return;
  }
  startShown = state;
  if (!edit) {
    start.replaceChildren(empty("start", "A picture"));
    return;
  }
  const change = (strength) => history.commit({ edit: { ...history.now.edit, strength } }, "edit strength");
  startSlider = slider("How much", edit.strength ?? defaultStrength(), 1, change);
  start.replaceChildren(
    h("div", { class: "thumbs" }, h("div", { class: "thumb" }, h("img", { src: edit.url, alt: `The picture to start from, ${edit.width} by ${edit.height} pixels` }),
      iconButton("close", "Start from noise again", removeEdit))),
    h("p", { class: "muted" }, inpaint ? "Inpainting: only what is hatched is drawn anew." : "Image to image: all of it is drawn anew."),
    inpaint ? "" : h("button", { type: "button", class: "quiet small", onclick: () => redrawLayer() }, icon("inpaint"), "Only a part"),
    startSlider.element);
}

let styleShown = null;
let styleSlider = null;
function showStyle() {
  const { references, strength } = settings.now.style;
  byId("style-source").hidden = settings.model?.style === false && references.length === 0;
  const state = JSON.stringify(references.map(({ url, weight }) => [url, weight]));
  if (state === styleShown) {
    styleSlider?.show(strength);
    return;
  }
  styleShown = state;
  if (references.length === 0) {
    style.replaceChildren(empty("style", "A picture"));
    return;
  }
  const set = (change) => settings.set({ style: { ...settings.now.style, ...change } });
  const without = (reference) => set({ references: settings.now.style.references.filter((each) => each !== reference) });
  const thumb = (reference, at) => h("div", { class: "thumb" },
    reference.url ? h("img", { src: reference.url, alt: `Style picture ${at + 1}` }) : h("span", { class: "muted" }, "kept style"),
    iconButton("close", `Remove style picture ${at + 1}`, () => without(reference)));
  styleSlider = slider("How much", strength, 2, (value) => set({ strength: value }));
  style.replaceChildren(
    h("div", { class: "thumbs" }, ...references.map(thumb), iconButton("plus", "One more style picture", () => openFor("style"))),
    styleSlider.element);
}

history.addEventListener("change", showStart);
settings.addEventListener("change", showStyle);

/** Shows both as they are now. */
export function showSources() { showStart(); showStyle(); }
