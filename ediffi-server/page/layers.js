// The list of layers: a colour, its words, how strongly they pull, the tokens they bind.

import { bound, onBindings } from "./bindings.js";
import { byId, h, iconButton, showProblems } from "./dom.js";
import { addLayer, history } from "./history.js";
import { coverage } from "./mask.js";
import { openFor } from "./open.js";
import { places } from "./phrases.js";
import { settings } from "./settings.js";

const list = byId("layers");
const rows = new Map();

const shares = new WeakMap();
function share(mask) {
  if (!shares.has(mask)) shares.set(mask, coverage(mask));
  return shares.get(mask);
}

const percent = (value) => `${value > 0 && value < 0.01 ? "< 1" : Math.round(100 * value)} %`;

const spokenName = ({ kind, phrase }) => (kind === "redraw" ? "Paint what is drawn anew" : `Paint “${phrase || "no words yet"}”`);

/** Small swatches beside the tools, for screens where the list is out of sight. */
function showPalette() {
  const { layers, current } = history.now;
  byId("palette").replaceChildren(...layers.map((layer) => {
    const swatch = h("button", {
      type: "button", class: "swatch", "aria-label": spokenName(layer), "aria-pressed": String(layer.id === current),
      onclick: () => history.choose(layer.id),
    });
    swatch.style.setProperty("--colour", layer.colour);
    return swatch;
  }));
}

/** Removes a layer; the one after it is current then. */
export function removeLayer(id) {
  const { layers } = history.now;
  const at = layers.findIndex((layer) => layer.id === id);
  const rest = layers.filter((layer) => layer.id !== id);
  history.commit({ layers: rest, current: (rest[at] ?? rest.at(-1))?.id ?? null });
}

function makeRow(id) {
  const layer = () => history.now.layers.find((each) => each.id === id);
  const change = (values, key) => history.change(id, values, key && `${key} ${id}`);
  const row = {};
  row.swatch = h("button", { type: "button", class: "swatch", onclick: () => history.choose(id) });
  row.phrase = h("input", {
    type: "text", class: "phrase", placeholder: "select words, or type", autocomplete: "off",
    oninput: (event) => change({ phrase: event.target.value, occurrence: "all" }, "phrase"),
    onfocus: () => history.choose(id),
  });
  row.share = h("span", { class: "share" });
  row.colour = h("input", { type: "color", "aria-label": "Colour", oninput: (event) => change({ colour: event.target.value }, "colour") });
  row.weight = h("input", {
    type: "range", min: 0, max: 3, step: 0.05,
    oninput: (event) => change({ weight: Number(event.target.value) }, "weight"),
  });
  row.value = h("output", {});
  row.occurrence = h("select", { "aria-label": "Which of its places", onchange: (event) => change({ occurrence: JSON.parse(event.target.value) }) });
  row.tokens = h("div", { class: "tokens" });
  row.note = h("p", { class: "muted note" });
  row.problem = h("div", { class: "problems", role: "alert", hidden: true });
  row.more = h("div", { class: "more" },
    h("label", { class: "slider full" }, h("span", {}, "Strength"), row.weight, row.value),
    h("div", { class: "more-row" }, row.colour, row.occurrence, h("span", { class: "grow" }),
      iconButton("mask", "Take the mask from a grey picture", () => openFor("mask", id)),
      iconButton("trash", "Empty the mask", () => change({ mask: new Uint8Array(layer().mask.length), file: null }), { class: "icon-button empty" })));
  row.element = h("li", {},
    h("div", { class: "layer-row" }, row.swatch, row.phrase, row.share, iconButton("close", "Remove the layer", () => removeLayer(id))),
    row.note, row.problem, row.tokens, row.more);
  return row;
}

function fillRow(row, layer) {
  const current = layer.id === history.now.current;
  const redraw = layer.kind === "redraw";
  row.element.className = current ? "layer current" : "layer";
  row.element.style.setProperty("--colour", layer.colour);
  row.swatch.setAttribute("aria-pressed", String(current));
  row.swatch.setAttribute("aria-label", spokenName(layer));
  row.phrase.readOnly = redraw;
  row.phrase.setAttribute("aria-label", redraw ? "Name of the layer" : "Words of the layer");
  const shown = redraw ? "Drawn anew" : layer.phrase;
  if (row.phrase.value !== shown) row.phrase.value = shown;
  row.colour.value = layer.colour;
  row.weight.value = layer.weight;
  row.value.textContent = layer.weight.toFixed(2);
  row.weight.closest("label").hidden = redraw;
  row.more.hidden = !current;
  const painted = share(layer.mask);
  row.share.textContent = percent(painted);
  row.note.textContent = painted === 0 ? "Nothing is painted yet." : shown.trim() === "" ? "No words yet: select them in the prompt." : "";
  row.note.hidden = row.note.textContent === "";
  fillOccurrence(row.occurrence, layer);
  fillBinding(row, layer, current);
}

function fillOccurrence(select, layer) {
  const found = places(settings.now.prompt, layer.phrase).length;
  const span = layer.occurrence.span ? [["these characters", layer.occurrence]] : [];
  const nth = Array.from({ length: found }, (_, at) => [`only place ${at + 1}`, { nth: at + 1 }]);
  const choices = [["every place", "all"], ...span, ...nth].map(([text, value]) => [text, JSON.stringify(value)]);
  select.hidden = layer.kind === "redraw" || (found < 2 && layer.occurrence === "all");
  if (select.dataset.choices !== JSON.stringify(choices)) {
    select.dataset.choices = JSON.stringify(choices);
    select.replaceChildren(...choices.map(([text, value]) => h("option", { value }, text)));
  }
  select.value = JSON.stringify(layer.occurrence);
}

const readable = (token) => token.replace(/^[▁Ġ]|<\/w>$/g, "").trim();

function fillBinding(row, layer, current) {
  const { region, problem } = bound(layer.id);
  showProblems(row.problem, problem ? [problem] : []);
  const encoders = current && region ? region.encoders : [];
  const token = ({ text }) => h("span", { class: "token" }, readable(text) || text);
  row.tokens.replaceChildren(...encoders.map(({ encoder, tokens }) =>
    h("div", { class: "encoder" }, h("span", { class: "encoder-name" }, encoder), ...tokens.map(token))));
  row.tokens.hidden = encoders.length === 0;
}

function showLayers() {
  const { layers, strength } = history.now;
  for (const [id, row] of rows) {
    if (layers.some((layer) => layer.id === id)) continue;
    row.element.remove();
    rows.delete(id);
  }
  layers.forEach((layer, at) => {
    if (!rows.has(layer.id)) rows.set(layer.id, makeRow(layer.id));
    const row = rows.get(layer.id);
    fillRow(row, layer);
    if (list.children[at] !== row.element) list.insertBefore(row.element, list.children[at] ?? null);
  });
  showPalette();
  byId("layers-empty").hidden = layers.length > 0;
  byId("strength-field").hidden = layers.every(({ kind }) => kind === "redraw");
  byId("strength").value = strength.weight;
  byId("strength-value").textContent = strength.weight.toFixed(2);
}

byId("add-layer").addEventListener("click", () => {
  addLayer();
  list.lastElementChild?.querySelector(".phrase").focus();
});
byId("strength").addEventListener("input", (event) => {
  history.commit({ strength: { ...history.now.strength, weight: Number(event.target.value) } }, "strength");
});

history.addEventListener("change", showLayers);
settings.addEventListener("change", showLayers);
onBindings(showLayers);
