// The request of what is on the page, and the page of a request.

import { decodeFile, encodeFile, fileFromBase64, fileToBase64, sizeOf } from "./files.js";
import { history, newLayer, REDRAW } from "./history.js";
import { decode, encode, fromPicture, isEmpty, toPng } from "./mask.js";
import { pictureSize, settings } from "./settings.js";

/** Keys of a request that the page has controls for; the others travel in `extra`. */
const KNOWN = ["prompt", "negative_prompt", "seed", "images", "preset", "last_stage", "width", "height", "canvas", "style", "edit"];

/** The layers that are sent: those with words and paint. */
export const sentLayers = () =>
  history.now.layers.filter((layer) => layer.kind === "phrase" && layer.phrase.trim() !== "" && !isEmpty(layer.mask));

const texts = new WeakMap();

/** The text of a mask, made once. */
function textOf(mask) {
  if (!texts.has(mask)) texts.set(mask, encode(mask));
  return texts.get(mask);
}

/** The canvas of these layers; none where there are no layers. */
export function canvasOf(layers) {
  const { width, height, strength } = history.now;
  const region = ({ phrase, weight, occurrence, sigma, mask }) => ({ phrase: phrase.trim(), weight, occurrence, sigma, mask: textOf(mask) });
  return layers.length === 0 ? undefined : { width, height, strength, regions: layers.map(region) };
}

/** How much of the picture to edit is drawn anew, where nothing is set: the library's own rule. */
export const defaultStrength = () => (history.now.layers.some((layer) => layer.kind === "redraw") ? 1 : 0.7);

function stagesOf() {
  const { stages, extra } = settings.now;
  const merged = {};
  for (const { name } of settings.stages) {
    const own = Object.entries(stages[name] ?? {}).filter(([, value]) => value !== null && value !== "");
    const all = { ...extra.stages?.[name], ...Object.fromEntries(own) };
    if (Object.keys(all).length > 0) merged[name] = all;
  }
  return Object.keys(merged).length > 0 ? merged : undefined;
}

function numbers() {
  const { negative, images, preset, lastStage, width, height, extra } = settings.now;
  const { stages: _, ...others } = extra;
  return {
    ...others, negative_prompt: negative || undefined, images, preset: preset || undefined,
    last_stage: lastStage || undefined, width: width ?? undefined, height: height ?? undefined, stages: stagesOf(),
  };
}

/** What is asked for, complete. */
export async function requestOf() {
  const { prompt, seed, style } = settings.now;
  const request = { prompt, seed, ...numbers(), canvas: canvasOf(sentLayers()) };
  if (style.references.length > 0) {
    const reference = ({ image, embedding, weight }) => ({ image, embedding, weight });
    request.style = { references: style.references.map(reference), strength: style.strength };
  }
  const { edit } = history.now;
  if (edit) request.edit = { picture: edit.picture, strength: edit.strength ?? undefined, mask: await maskOf(edit) };
  return request;
}

async function maskOf(edit) {
  const layer = history.now.layers.find(({ kind }) => kind === "redraw");
  if (!layer) return undefined;
  const { width, height } = history.now;
  return layer.file ?? encodeFile(await toPng(layer.mask, width, height, edit.width, edit.height));
}

/** What decides the plan: no more than the numbers, so that it can be asked for at every change. */
export function planRequest() {
  const { edit } = history.now;
  const { prompt } = settings.now;
  const request = { prompt, unconditional: prompt.trim() === "" || undefined, ...numbers() };
  if (request.unconditional) delete request.negative_prompt;
  if (edit) request.edit = { picture: edit.picture, strength: edit.strength ?? defaultStrength() };
  return request;
}

/** What decides the bindings of these layers. */
export const bindingsRequest = (layers) => {
  const { truncate } = settings.now.extra;
  return { prompt: settings.now.prompt, truncate, canvas: canvasOf(layers) };
};

/** Shows a request on the page: everything it says, and nothing of what was there before. */
export async function restore(request) {
  const extra = Object.fromEntries(Object.entries(request).filter(([key]) => !KNOWN.includes(key)));
  const stages = {};
  for (const [name, patch] of Object.entries(extra.stages ?? {})) {
    const { steps, guidance_scale, solver, ...others } = patch;
    const named = typeof solver === "string" ? solver : undefined;
    stages[name] = { steps: steps ?? null, guidance_scale: guidance_scale ?? null, solver: named ?? null };
    if (solver !== undefined && named === undefined) others.solver = solver;
    extra.stages = { ...extra.stages, [name]: others };
    if (Object.keys(others).length === 0) delete extra.stages[name];
  }
  if (Object.keys(extra.stages ?? {}).length === 0) delete extra.stages;
  const references = await Promise.all((request.style?.references ?? []).map(withUrl));
  settings.set({
    prompt: request.prompt ?? "", negative: request.negative_prompt ?? "", seed: request.seed ?? "0", locked: true,
    images: request.images ?? 1, preset: request.preset ?? "", lastStage: request.last_stage ?? "", stages, extra,
    width: request.width ?? null, height: request.height ?? null,
    style: { strength: request.style?.strength ?? 1, references },
  });
  await restoreDocument(request);
}

/** A reference as the page shows it. */
export const withUrl = async (reference) => ({
  weight: 1, ...reference, url: reference.image ? URL.createObjectURL(fileFromBase64(reference.image)) : null,
});

async function restoreDocument({ canvas, edit }) {
  const kept = edit ? await editOf(edit.picture, edit.strength ?? null) : null;
  const size = canvas ?? sheetSize(kept);
  const { width, height } = size;
  let layers = [];
  const add = (values) => { layers = [...layers, newLayer(layers, values)]; };
  for (const { mask, ...region } of canvas?.regions ?? []) add({ ...region, mask: decode(mask, width, height) });
  if (edit?.mask) {
    const mask = fromPicture(await decodeFile(fileFromBase64(edit.mask)), width, height);
    add({ kind: "redraw", colour: REDRAW, mask, file: edit.mask });
  }
  const strength = canvas?.strength ?? { weight: 0.4 };
  history.commit({ width, height, strength, layers, current: layers.at(0)?.id ?? null, edit: kept });
}

/** A picture to begin with, from the base64 of its file. */
export async function editOf(picture, strength = null) {
  const file = fileFromBase64(picture);
  const { width, height } = await sizeOf(file);
  return { picture, strength, width, height, url: URL.createObjectURL(file) };
}

/** The same from a file. */
export const editOfFile = async (file) => editOf(await fileToBase64(file));

const LONGEST = 512;

/** The size of a fresh sheet to paint on: of the proportions of the picture. */
export function sheetSize(edit) {
  const { width, height } = pictureSize(edit);
  const scale = LONGEST / Math.max(width, height);
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

