// The keyboard: one table for what keys do and for the dialog that lists them.

import { abort, refresh } from "./board.js";
import { byId, h, isWriting } from "./dom.js";
import { cancel, drawOrCancel } from "./drawing.js";
import { addLayer, history } from "./history.js";
import { settings } from "./settings.js";
import { setSize, setTool } from "./toolbar.js";
import { showPane } from "./panes.js";

/** A step along the layers. */
function otherLayer(step) {
  const { layers, current } = history.now;
  if (layers.length === 0) return;
  const at = layers.findIndex(({ id }) => id === current);
  history.choose(layers[(at + step + layers.length) % layers.length].id);
}

const open = (id) => () => byId(id).showModal();

/** Keys with a modifier work everywhere, the others where one does not write. */
const KEYS = [
  { keys: ["Ctrl+Enter"], text: "Draw, or cancel what is being drawn", act: drawOrCancel },
  { keys: ["Ctrl+Z"], text: "Undo (while writing: the text's own)", act: () => { if (!abort()) history.undo(); }, notWriting: true },
  { keys: ["Ctrl+Shift+Z", "Ctrl+Y"], text: "Redo", act: () => { abort(); history.redo(); }, notWriting: true },
  { keys: ["B"], text: "Brush", act: () => setTool("brush") },
  { keys: ["E"], text: "Eraser", act: () => setTool("eraser") },
  { keys: ["R"], text: "Rectangle (Shift: square)", act: () => setTool("rectangle") },
  { keys: ["O"], text: "Ellipse (Shift: circle)", act: () => setTool("ellipse") },
  { keys: ["P"], text: "Polygon (double click or Enter closes it)", act: () => setTool("polygon") },
  { keys: ["["], text: "Smaller brush", act: () => setSize(-2) },
  { keys: ["]"], text: "Larger brush", act: () => setSize(2) },
  { keys: ["N"], text: "New layer", act: () => { addLayer(); } },
  { keys: ["J"], text: "Next layer", act: () => otherLayer(1) },
  { keys: ["K"], text: "Layer before", act: () => otherLayer(-1) },
  { keys: ["D"], text: "Another seed", act: () => settings.roll() },
  { keys: ["L"], text: "Keep the seed, or not", act: () => settings.set({ locked: !settings.now.locked }) },
  { keys: ["1"], text: "Canvas", act: () => showPane("sheet") },
  { keys: ["2"], text: "Picture", act: () => showPane("picture") },
  { keys: [","], text: "Settings", act: open("options") },
  { keys: ["?"], text: "This table", act: open("help") },
  { keys: ["Escape"], text: "Drop what is half drawn; then cancel drawing", act: () => { if (!abort()) cancel(); } },
];

/** Keys of the canvas itself, which has the focus then. */
const ON_CANVAS = [
  ["Arrows", "Move the brush (Shift: a little)"],
  ["Space", "Pen down, pen up; a corner of a polygon"],
  ["Enter", "Close the polygon"],
  ["Alt", "Erase, with any tool, while it is held"],
];

function nameOf(event) {
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  return `${control ? "Ctrl+" : ""}${control && event.shiftKey ? "Shift+" : ""}${key}`;
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const name = nameOf(event);
  const entry = KEYS.find(({ keys }) => keys.includes(name));
  const control = name.startsWith("Ctrl+");
  if (!entry || (isWriting(event.target) && (!control || entry.notWriting))) return;
  event.preventDefault();
  entry.act();
  refresh();
});

const caps = (keys) => keys.flatMap((key, at) => [at > 0 ? " or " : "", h("kbd", {}, key)]);
byId("help-body").replaceChildren(
  h("table", {}, h("tbody", {},
    KEYS.map(({ keys, text }) => h("tr", {}, h("th", { scope: "row" }, caps(keys)), h("td", {}, text))),
    h("tr", { class: "divider" }, h("th", { scope: "rowgroup", colspan: 2 }, "On the canvas")),
    ON_CANVAS.map(([key, text]) => h("tr", {}, h("th", { scope: "row" }, caps([key])), h("td", {}, text))))),
  h("p", { class: "muted" }, "A Mac's Command key is Ctrl here. Programs use the same interface as this page: ", h("a", { href: "/api/v1/openapi.json" }, "its description"), "."));

byId("help-button").addEventListener("click", open("help"));
byId("options-button").addEventListener("click", open("options"));
byId("undo").addEventListener("click", () => { if (!abort()) history.undo(); });
byId("redo").addEventListener("click", () => { abort(); history.redo(); });

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  // A press beside the dialog closes it.
  dialog.addEventListener("pointerdown", (event) => { if (event.target === dialog) dialog.close(); });
}
