// The prompt: its words in the colours of their layers, and picking words by selecting them.

import { byId, h, icon } from "./dom.js";
import { addLayer, history } from "./history.js";
import { painted, places, wholeWords } from "./phrases.js";
import { settings } from "./settings.js";

const field = byId("prompt");
const marks = byId("marks");
const pick = byId("pick");

/** Shows the words of the layers in their colours, behind the text. */
function mark() {
  const { prompt } = settings.now;
  const colours = Array.from({ length: prompt.length }, () => null);
  for (const layer of history.now.layers.filter(({ kind, phrase }) => kind === "phrase" && phrase.trim() !== "")) {
    for (const [start, end] of painted(prompt, layer)) colours.fill(layer.colour, start, end);
  }
  const parts = [];
  for (let start = 0, end = 0; start < prompt.length; start = end) {
    while (end < prompt.length && colours[end] === colours[start]) end += 1;
    const part = h("span", {}, prompt.slice(start, end));
    if (colours[start]) {
      part.className = "bound";
      part.style.setProperty("--colour", colours[start]);
    }
    parts.push(part);
  }
  // A last line break has no height without something after it.
  marks.replaceChildren(...parts, "\u200b");
  marks.scrollTop = field.scrollTop;
}

/** The words that are selected: their text, and which of its places it is. */
function selection() {
  const { prompt } = settings.now;
  const range = wholeWords(prompt, field.selectionStart, field.selectionEnd);
  if (!range || field.selectionStart === field.selectionEnd) return null;
  return phraseAt(...range);
}

/** The layer whose words are being tapped, and which words of the prompt they are. */
let tapped = { layer: null, from: 0, to: -1 };

/** The words of the prompt as buttons, for fingers: a word beside the last ones joins them. */
function wordButtons(layer) {
  const { prompt } = settings.now;
  const words = [...prompt.matchAll(/[\p{L}\p{M}\p{N}_]+(?:['’-][\p{L}\p{M}\p{N}_]+)*/gu)].map((match) => [match.index, match.index + match[0].length]);
  if (tapped.layer !== layer.id) tapped = { layer: layer.id, from: 0, to: -1 };
  const tap = (at) => {
    const { from, to } = tapped;
    const joins = to >= from && (at === from - 1 || at === to + 1);
    tapped = { layer: layer.id, from: joins ? Math.min(at, from) : at, to: joins ? Math.max(at, to) : at };
    history.change(layer.id, phraseAt(words[tapped.from][0], words[tapped.to][1]), `words ${layer.id}`);
  };
  const button = ([start, end], at) => h("button", {
    type: "button", class: "pick-button word", onclick: () => tap(at), "aria-pressed": String(at >= tapped.from && at <= tapped.to),
  }, prompt.slice(start, end));
  const named = h("div", { class: "word-row", role: "group", "aria-label": "Words of the current layer" }, spot(layer.colour), words.map(button));
  return words.length > 0 ? [named] : null;
}

/** The phrase between two places of the prompt, and which of its places it is. */
function phraseAt(start, end) {
  const { prompt } = settings.now;
  const phrase = prompt.slice(start, end).replace(/\s+/g, " ");
  const all = places(prompt, phrase);
  const nth = all.findIndex(([from]) => from === start) + 1;
  return { phrase, occurrence: all.length > 1 && nth > 0 ? { nth } : "all" };
}

function spot(colour) {
  const element = h("span", { class: "spot" });
  element.style.setProperty("--colour", colour);
  return element;
}

let offered = "";

/** Offers to paint the selected words: with the current layer if it has none yet, else with a new one. */
function offer() {
  const words = selection();
  const layer = history.current;
  const state = JSON.stringify([words, layer?.id, layer?.phrase, layer?.colour, words ? "" : settings.now.prompt, settings.server !== null]);
  if (state === offered) return;
  offered = state;
  if (!words) {
    const naming = layer?.kind === "phrase" && (layer.phrase.trim() === "" || tapped.layer === layer.id);
    pick.replaceChildren(...((naming && wordButtons(layer)) || hint()));
    return;
  }
  const use = () => { history.change(layer.id, words); pickDone(); };
  const add = () => { addLayer(words); pickDone(); };
  const button = (act, primary, ...text) => h("button", { type: "button", class: primary ? "pick-button primary" : "pick-button", onclick: act }, ...text);
  const unnamed = layer?.kind === "phrase" && layer.phrase.trim() === "";
  const named = layer?.kind === "phrase" && !unnamed;
  pick.replaceChildren(...[
    unnamed && button(use, true, spot(layer.colour), `is “${words.phrase}”`),
    button(add, !unnamed, icon("plus"), `Paint “${words.phrase}”`),
    named && button(use, false, spot(layer.colour), "means this"),
  ].filter(Boolean));
}

function hint() {
  if (settings.now.prompt !== "") return [h("p", { class: "muted" }, "Select words to give them a colour.")];
  const prompts = (settings.model?.prompts ?? []).slice(0, 3);
  if (prompts.length === 0) return [];
  const example = (prompt) => h("button", { type: "button", class: "pick-button", onclick: () => settings.set({ prompt }) }, prompt);
  return [h("p", { class: "muted" }, "For example"), ...prompts.map(example)];
}

function pickDone() {
  field.setSelectionRange(field.selectionEnd, field.selectionEnd);
  byId("sheet").focus({ preventScroll: true });
  offer();
}

field.addEventListener("input", () => settings.set({ prompt: field.value }));
field.addEventListener("scroll", () => { marks.scrollTop = field.scrollTop; });
for (const event of ["select", "keyup", "pointerup", "focus"]) field.addEventListener(event, () => setTimeout(offer));
document.addEventListener("selectionchange", () => { if (document.activeElement === field) offer(); });

/** Shows prompt and colours as they are now. */
export function showPrompt() {
  if (field.value !== settings.now.prompt) field.value = settings.now.prompt;
  mark();
  offer();
}

settings.addEventListener("change", showPrompt);
history.addEventListener("change", showPrompt);
