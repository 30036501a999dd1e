// The tools' buttons and sliders.

import { finish, refresh } from "./board.js";
import { byId, h, icon } from "./dom.js";
import { history } from "./history.js";
import { brush } from "./tools.js";
import { showPane } from "./panes.js";

const TOOLS = [
  ["brush", "Brush", "B"], ["eraser", "Eraser", "E"], ["rectangle", "Rectangle", "R"], ["ellipse", "Ellipse", "O"], ["polygon", "Polygon", "P"],
];

const inputs = new Map();

byId("tools").replaceChildren(...TOOLS.map(([name, label, key]) => {
  const input = h("input", { type: "radio", name: "tool", value: name, "aria-label": label, onchange: () => setTool(name) });
  inputs.set(name, input);
  return h("label", { class: "tool", title: `${label} (${key})` }, input, icon(name));
}));

/** Chooses a tool. A polygon that is being drawn is closed first. */
export function setTool(name) {
  finish();
  brush.tool = name;
  inputs.get(name).checked = true;
  showPane("sheet");
  refresh();
}

/** Makes the brush wider or narrower, in hundredths of the sheet. */
export function setSize(step) {
  const input = byId("size");
  input.value = Number(input.value) + step;
  readSliders();
}

function readSliders() {
  brush.size = Number(byId("size").value) / 100;
  brush.softness = Number(byId("softness").value) / 100;
  refresh();
}

byId("size").addEventListener("input", readSliders);
byId("softness").addEventListener("input", readSliders);

history.addEventListener("change", () => {
  byId("undo").disabled = !history.canUndo;
  byId("redo").disabled = !history.canRedo;
});

/** Shows the first tool. */
export function showToolbar() {
  inputs.get(brush.tool).checked = true;
  byId("undo").disabled = byId("redo").disabled = true;
}
