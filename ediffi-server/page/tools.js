// The tools: what a press, a drag and a release do to a mask.
//
// A tool gets points in pixels of the mask. While it works, it paints into a copy; `done` says that the copy is finished.

import { ellipse, polygon, rectangle, stroke } from "./raster.js";

/** What the tools share. Sizes are shares of the longer side of the sheet, so that they do not depend on its pixels. */
export const brush = { tool: "brush", size: 0.12, softness: 0 };

/** Half the brush's width in pixels of a sheet. */
export const radiusOf = (sheet) => Math.max(0.5, (brush.size * Math.max(sheet.width, sheet.height)) / 2);

const featherOf = (sheet) => Math.max(1, brush.softness * radiusOf(sheet));

/** A stroke of the brush or of the eraser, as wide as the pen presses. */
class Stroke {
  constructor(mask, erase) { Object.assign(this, { mask, erase, last: null }); }

  #to(point) {
    const radius = radiusOf(this.mask) * (point.pressure ?? 1);
    stroke(this.mask, this.last ?? point, point, radius, brush.softness, this.erase);
    this.last = point;
  }

  press(point) { this.#to(point); }
  move(point) { this.#to(point); }
  release() { return { done: true }; }
  outline() { return null; }
}

/** A rectangle or an ellipse between two corners. With Shift it is as wide as high. */
class Corners {
  constructor(mask, erase, shape) { Object.assign(this, { mask, erase, shape, from: null, to: null }); }

  press(point) { this.from = this.to = point; }

  move(point) {
    this.to = point;
    if (!point.shift) return;
    const side = Math.max(Math.abs(point.x - this.from.x), Math.abs(point.y - this.from.y));
    const along = (to, from) => from + Math.sign(to - from) * side;
    this.to = { x: along(point.x, this.from.x), y: along(point.y, this.from.y) };
  }

  release() {
    const paint = this.shape === "ellipse" ? ellipse : rectangle;
    const large = Math.abs(this.from.x - this.to.x) >= 1 && Math.abs(this.from.y - this.to.y) >= 1;
    if (large) paint(this.mask, this.from, this.to, featherOf(this.mask), this.erase);
    return { done: true, nothing: !large };
  }

  outline() { return { shape: this.shape, points: [this.from, this.to] }; }
}

/** A polygon: a point a press, closed at its first point or with `finish`. */
class Polygon {
  constructor(mask, erase) { Object.assign(this, { mask, erase, points: [], cursor: null, near: false }); }

  press(point) {
    const [first] = this.points;
    const reach = Math.max(0.04 * Math.max(this.mask.width, this.mask.height), 3);
    this.near = this.points.length > 2 && Math.hypot(first.x - point.x, first.y - point.y) < reach;
    if (!this.near) this.points.push(point);
    this.cursor = point;
  }

  move(point) { this.cursor = point; }
  release() { return this.near ? this.finish() : { done: false }; }

  finish() {
    const enough = this.points.length > 2;
    if (enough) polygon(this.mask, this.points, featherOf(this.mask), this.erase);
    return { done: true, nothing: !enough };
  }

  outline() { return { shape: "polygon", points: [...this.points, this.cursor] }; }
}

/** The tool that is chosen, at work on a copy of a mask. */
export function begin(sheet, erase) {
  const copy = { width: sheet.width, height: sheet.height, levels: Uint8Array.from(sheet.levels) };
  if (brush.tool === "rectangle" || brush.tool === "ellipse") return new Corners(copy, erase, brush.tool);
  if (brush.tool === "polygon") return new Polygon(copy, erase);
  return new Stroke(copy, erase || brush.tool === "eraser");
}
