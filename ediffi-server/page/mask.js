// Masks: a level of 0 to 255 for each pixel, row after row, and their forms as text and as pictures.

/** The text that a request stores: runs of `level*count`, row after row. */
export function encode(levels) {
  const runs = [];
  for (let start = 0, end = 0; start < levels.length; start = end) {
    const level = levels[start];
    while (end < levels.length && levels[end] === level) end += 1;
    runs.push(end - start === 1 ? `${level}` : `${level}*${end - start}`);
  }
  return runs.join(" ");
}

/** Reads what `encode` wrote. Throws where the text does not fill the mask. */
export function decode(text, width, height) {
  const levels = new Uint8Array(width * height);
  let at = 0;
  for (const run of text.split(/\s+/).filter(Boolean)) {
    const [level, count = 1] = run.split("*").map(Number);
    levels.fill(level, at, at + count);
    at += count;
  }
  if (at !== levels.length) throw new Error(`a mask holds ${at} pixels in place of ${levels.length}`);
  return levels;
}

/** The share of the mask that is painted, from 0 to 1. */
export function coverage(levels) {
  let sum = 0;
  for (const level of levels) sum += level;
  return sum / (255 * levels.length);
}

export const isEmpty = (levels) => levels.every((level) => level === 0);

function sheet(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "black";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  return { canvas, context };
}

/** A picture of the mask, of another size: white is painted, black is not. */
function grey(levels, width, height, newWidth, newHeight) {
  const small = document.createElement("canvas");
  Object.assign(small, { width, height });
  const pixels = new ImageData(width, height);
  levels.forEach((level, at) => pixels.data.set([level, level, level, 255], 4 * at));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const { canvas, context } = sheet(newWidth, newHeight);
  context.drawImage(small, 0, 0, newWidth, newHeight);
  return { canvas, context };
}

function levelsOf(context, width, height) {
  const { data } = context.getImageData(0, 0, width, height);
  const light = (at) => Math.round(0.2126 * data[at] + 0.7152 * data[at + 1] + 0.0722 * data[at + 2]);
  return Uint8Array.from({ length: width * height }, (_, at) => light(4 * at));
}

/** The mask in another size. */
export function scaled(levels, width, height, newWidth, newHeight) {
  if (width === newWidth && height === newHeight) return levels;
  const { context } = grey(levels, width, height, newWidth, newHeight);
  return levelsOf(context, newWidth, newHeight);
}

/** The levels of a picture, stretched over the mask: white is painted; black and what is transparent are not. */
export function fromPicture(bitmap, width, height) {
  const { context } = sheet(width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return levelsOf(context, width, height);
}

/** A PNG file of the mask in a size of its own. */
export function toPng(levels, width, height, newWidth, newHeight) {
  const { canvas } = grey(levels, width, height, newWidth, newHeight);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
}
