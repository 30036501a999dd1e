// The sheet that is painted on: pointer, pen, touch and keys, and how the layers look.

import { announce, byId } from "./dom.js";
import { addLayer, history } from "./history.js";
import { begin, brush, radiusOf } from "./tools.js";

const canvas = byId("sheet");
const overlay = byId("overlay");
const context = canvas.getContext("2d");

let work = null;
let pointer = null;
/** Where the keyboard paints, in pixels of the sheet; `null` while a pointer is used. */
let cursor = null;
let down = false;

// --- looking ---

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

/** Draws all layers: the current one stronger, the one of redrawing hatched. */
function draw() {
  const { width, height, layers, current } = history.now;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const image = context.createImageData(width, height);
  const { data } = image;
  for (const layer of layers) {
    const levels = work && layer.id === work.layer ? work.tool.mask.levels : layer.mask;
    const [red, green, blue] = channels(layer.colour);
    const most = layer.kind === "redraw" ? 0.72 : layer.id === current ? 0.96 : 0.8;
    for (let at = 0; at < levels.length; at += 1) {
      if (levels[at] === 0) continue;
      const hatched = layer.kind === "redraw" && ((at % width) + Math.floor(at / width)) % 12 < 5 ? 0.45 : 1;
      const alpha = (levels[at] / 255) * most * hatched;
      const [to, below] = [4 * at, (1 - alpha) * (data[4 * at + 3] / 255)];
      const whole = alpha + below;
      data[to] = (red * alpha + data[to] * below) / whole;
      data[to + 1] = (green * alpha + data[to + 1] * below) / whole;
      data[to + 2] = (blue * alpha + data[to + 2] * below) / whole;
      data[to + 3] = 255 * whole;
    }
  }
  context.putImageData(image, 0, 0);
  byId("sheet-hint").hidden = work !== null || layers.length > 0;
}

let waiting = false;
function drawSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); outline(); });
}

const SVG = "http://www.w3.org/2000/svg";
function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** The ring of the brush, the cross of the keyboard, and the shape that is being drawn: each dark on light. */
function outline() {
  const { width, height } = history.now;
  overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const parts = [];
  const at = cursor ?? pointer;
  if (at && (brush.tool === "brush" || brush.tool === "eraser")) {
    parts.push(["circle", { cx: at.x, cy: at.y, r: radiusOf(history.now) }]);
  }
  if (cursor) {
    const arm = 0.025 * Math.max(width, height);
    parts.push(["path", { d: `M${at.x - arm} ${at.y}h${2 * arm}M${at.x} ${at.y - arm}v${2 * arm}` }]);
  }
  const drawn = work?.tool.outline();
  if (drawn?.points.every(Boolean)) {
    const [a, b] = [drawn.points[0], drawn.points.at(-1)];
    const [x, y, w, t] = [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.abs(a.x - b.x), Math.abs(a.y - b.y)];
    if (drawn.shape === "rectangle") parts.push(["rect", { x, y, width: w, height: t }]);
    if (drawn.shape === "ellipse") parts.push(["ellipse", { cx: x + w / 2, cy: y + t / 2, rx: w / 2, ry: t / 2 }]);
    if (drawn.shape === "polygon") {
      parts.push(["polyline", { points: drawn.points.map((p) => `${p.x},${p.y}`).join(" ") }]);
      parts.push(["circle", { cx: a.x, cy: a.y, r: 0.012 * Math.max(width, height) }]);
    }
  }
  const both = parts.flatMap(([name, attributes]) => ["dark", "light"].map((tone) => shape(name, { ...attributes, class: tone })));
  overlay.replaceChildren(...both);
}

// --- painting ---

/** The layer that is painted; the first stroke on an empty sheet makes one. */
function target() {
  return history.current ?? history.now.layers.at(-1) ?? addLayer();
}

function press(point, erase) {
  if (!work) {
    const layer = target();
    history.choose(layer.id);
    work = { layer: layer.id, tool: begin({ ...history.now, levels: layer.mask }, erase) };
  }
  down = true;
  work.tool.press(point);
  drawSoon();
}

function move(point) {
  if (work && (down || brush.tool === "polygon")) work.tool.move(point);
  drawSoon();
}

function release() {
  down = false;
  if (work) settle(work.tool.release());
}

function settle({ done, nothing = false }) {
  if (!done) return drawSoon();
  const { layer, tool } = work;
  work = null;
  if (!nothing) history.change(layer, { mask: tool.mask.levels, file: null });
  return drawSoon();
}

/** Drops what is half drawn. Says whether there was something. */
export function abort() {
  const was = work !== null;
  [work, down] = [null, false];
  drawSoon();
  return was;
}

/** Closes a polygon that is being drawn. */
export function finish() {
  if (work?.tool.finish) settle(work.tool.finish());
}

/** Shows the brush anew after its size changed. */
export const refresh = drawSoon;

// --- pointer, pen and touch ---

function pointOf(event) {
  const box = canvas.getBoundingClientRect();
  const { width, height } = history.now;
  const x = ((event.clientX - box.left) / box.width) * width;
  const y = ((event.clientY - box.top) / box.height) * height;
  const pressure = event.pointerType === "pen" && event.pressure > 0 ? 0.35 + 0.65 * event.pressure : 1;
  return { x, y, pressure, shift: event.shiftKey };
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  try {
    canvas.setPointerCapture(event.pointerId);
  } catch { /* A pointer that is gone already, or one of a script. */ }
  cursor = null;
  pointer = pointOf(event);
  press(pointer, event.altKey);
});

canvas.addEventListener("pointermove", (event) => {
  if (!event.isPrimary) return;
  const coalesced = event.getCoalescedEvents?.() ?? [];
  for (const each of coalesced.length > 0 ? coalesced : [event]) {
    pointer = pointOf(each);
    cursor = null;
    move(pointer);
  }
});

canvas.addEventListener("pointerup", (event) => { if (event.isPrimary && down) release(); });
canvas.addEventListener("pointercancel", () => { if (brush.tool !== "polygon") abort(); });
canvas.addEventListener("pointerleave", () => { if (!down) { pointer = null; drawSoon(); } });
canvas.addEventListener("dblclick", finish);

// --- keys ---

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { width, height } = history.now;
  const arrow = ARROWS[event.key];
  if (arrow) {
    const step = Math.max(width, height) * (event.shiftKey ? 0.005 : 0.03);
    const from = cursor ?? { x: width / 2, y: height / 2 };
    const inside = (value, most) => Math.min(most, Math.max(0, value));
    cursor = { x: inside(from.x + arrow[0] * step, width), y: inside(from.y + arrow[1] * step, height) };
    move(cursor);
    announce(`${Math.round((100 * cursor.x) / width)} % across, ${Math.round((100 * cursor.y) / height)} % down${down ? ", painting" : ""}`);
  } else if (event.key === " ") {
    cursor ??= { x: width / 2, y: height / 2 };
    if (brush.tool === "polygon") {
      press(cursor, false);
      release();
      announce("Point set. Enter closes the polygon.");
    } else if (down) {
      release();
      announce("Painted.");
    } else {
      press(cursor, false);
      announce("The pen is down. Arrows paint, Space lifts it.");
    }
  } else if (event.key === "Enter") {
    finish();
  } else {
    return;
  }
  event.preventDefault();
});

canvas.addEventListener("focus", () => {
  if (!canvas.matches(":focus-visible")) return;
  cursor ??= { x: history.now.width / 2, y: history.now.height / 2 };
  drawSoon();
});
canvas.addEventListener("blur", () => { cursor = null; if (down) release(); drawSoon(); });

history.addEventListener("change", drawSoon);
