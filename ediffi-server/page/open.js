// Opening pictures: what a file becomes, whether it is chosen, dropped or pasted.

import * as api from "./api.js";
import { abort } from "./board.js";
import { announce, byId, h, icon, showProblems } from "./dom.js";
import { decodeFile, styleToBase64 } from "./files.js";
import { addLayer, history, redrawLayer } from "./history.js";
import { fromPicture, isEmpty, scaled } from "./mask.js";
import { editOfFile, restore, sheetSize, withUrl } from "./request.js";
import { settings } from "./settings.js";

/** What a picture can be for. */
const KINDS = {
  restore: ["restore", "Restore", "A PNG of ediffi: words, paint, seed, settings"],
  start: ["image", "Start from it", "Draw it anew, or a part of it"],
  style: ["brush", "Take its style", "Colours and strokes, not what is in it"],
  mask: ["mask", "Mask", "White is painted with the current layer"],
};

const input = byId("file");
let wanted = null;

/** Asks for a file of one kind; `layer` is the one that a mask is for. */
export function openFor(kind, layer = null) {
  wanted = { kind, layer };
  input.value = "";
  input.click();
}

input.addEventListener("change", () => {
  const [file] = input.files;
  if (file && wanted) take(wanted.kind, file, wanted.layer);
});

/** Takes a file as what it is for. What is wrong with it is said where that kind is shown. */
export async function take(kind, file, layer = null) {
  const place = { restore: "notice", start: "edit-problems", style: "style-problems", mask: "canvas-problems" }[kind];
  try {
    showProblems(byId(place), []);
    await TAKE[kind](file, layer);
    announce(`${KINDS[kind][1]}: done.`);
  } catch (error) {
    showProblems(byId(place), error.problems ?? [error.message]);
  }
}

const TAKE = {
  async restore(file) {
    const { request } = await api.read(file);
    abort();
    await restore(request);
  },
  async start(file) { await startFrom(file); },
  async style(file) {
    const reference = await withUrl({ image: await styleToBase64(file), weight: 1 });
    const { style } = settings.now;
    settings.set({ style: { ...style, references: [...style.references, reference] } });
  },
  async mask(file, id) {
    const bitmap = await decodeFile(file);
    const { width, height } = history.now;
    const mask = fromPicture(bitmap, width, height);
    const layer = history.now.layers.find((each) => each.id === id) ?? history.current ?? addLayer();
    history.change(layer.id, { mask, file: null });
  },
};

/** Begins with a picture. With `inpaint` there is a layer for what is drawn anew. */
export async function startFrom(file, inpaint = false) {
  const edit = await editOfFile(file);
  const layers = history.now.layers.map((layer) => (layer.kind === "redraw" ? { ...layer, file: null } : layer));
  history.commit({ edit, layers });
  fitSheet();
  if (inpaint) redrawLayer();
}

/** Brings the sheet to the proportions of the picture that is drawn. */
export function fitSheet() {
  const { width, height, layers, edit } = history.now;
  const size = sheetSize(edit);
  if (Math.abs((size.width * height) / (size.height * width) - 1) < 0.02) return;
  const fit = (layer) => ({ ...layer, file: null, mask: isEmpty(layer.mask) ? new Uint8Array(size.width * size.height) : scaled(layer.mask, width, height, size.width, size.height) });
  abort();
  history.commit({ ...size, layers: layers.map(fit) });
}

// --- the dialog, and dropping ---

const chooser = byId("chooser");
let held = null;

function choices(act, tag = "button") {
  return Object.entries(KINDS).map(([kind, [symbol, title, text]]) => h(tag, {
    class: "choice", "data-kind": kind, ...(tag === "button" ? { type: "button", onclick: () => act(kind) } : {}),
  }, icon(symbol), h("b", {}, title), h("span", {}, text)));
}

function choose(file = null) {
  held = file;
  byId("chooser-title").textContent = file ? "What is this picture?" : "Open a picture";
  if (!chooser.open) chooser.showModal();
}

byId("chooser-body").replaceChildren(...choices((kind) => {
  chooser.close();
  if (held) take(kind, held);
  else openFor(kind);
}));
byId("open").addEventListener("click", () => choose());

const drop = byId("drop");
drop.append(...choices(() => {}, "div"));

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

document.addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.hidden = false;
});
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  const over = event.target.closest?.("[data-kind]");
  for (const each of drop.children) each.classList.toggle("over", each === over);
});
document.addEventListener("dragleave", (event) => { if (event.relatedTarget === null) drop.hidden = true; });
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.hidden = true;
  const [file] = event.dataTransfer.files;
  const kind = event.target.closest?.("[data-kind]")?.dataset.kind;
  if (file && kind) take(kind, file);
  else if (file) choose(file);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file?.type.startsWith("image/")) choose(file);
});
