// The tokens that each layer binds, asked for whenever prompt or paint change.

import * as api from "./api.js";
import { byId, debounced, showProblems } from "./dom.js";
import { history } from "./history.js";
import { bindingsRequest, sentLayers } from "./request.js";
import { settings } from "./settings.js";

let found = new Map();
let told = () => {};
let abort = null;
let asked = null;

/** What is known of a layer: its region as the server binds it, or what the server says against it. */
export const bound = (id) => found.get(id) ?? { region: null, problem: null };

/** Sets who is told of news. */
export const onBindings = (act) => { told = act; };

/** The layer that a problem is about: the one whose phrase it names. */
export const layerOf = (problem, layers) => layers.find(({ phrase }) => problem.includes(`\`${phrase.trim()}\``));

/** Says at the layers what is wrong with them, and returns what is about none. */
export function placeAtLayers(problems) {
  const layers = history.now.layers.filter(({ kind, phrase }) => kind === "phrase" && phrase.trim() !== "");
  const others = [];
  for (const problem of problems) {
    const layer = /canvas|phrase|region|mask/i.test(problem) ? layerOf(problem, layers) : null;
    if (layer) found.set(layer.id, { region: null, problem });
    else others.push(problem);
  }
  told();
  return others;
}

async function ask() {
  const { prompt } = settings.now;
  let layers = prompt.trim() === "" || !settings.model?.canvas ? [] : sentLayers();
  const question = JSON.stringify([settings.model?.id, prompt, settings.now.extra.truncate, layers.map((l) => [l.id, l.phrase, l.occurrence, l.weight, l.sigma])]);
  const masks = layers.map((layer) => layer.mask);
  if (asked && asked.question === question && asked.masks.every((mask, at) => mask === masks[at])) return;
  abort?.abort();
  abort = new AbortController();
  const { signal } = abort;
  const news = new Map();
  const others = [];
  try {
    // A layer that is refused is left out, so that the others are bound all the same.
    while (layers.length > 0) {
      try {
        const { regions } = await api.bindings({ model: settings.model.id, request: bindingsRequest(layers) }, signal);
        for (const region of regions) {
          const layer = layers[region.index];
          if (layer) news.set(layer.id, { region, problem: null });
        }
        break;
      } catch (error) {
        if (!(error instanceof api.ApiError) || error.status !== 400) throw error;
        const before = layers.length;
        for (const problem of error.problems) {
          const layer = layerOf(problem, layers);
          if (layer) news.set(layer.id, { region: null, problem });
        }
        layers = layers.filter(({ id }) => !news.get(id)?.problem);
        if (layers.length === before) {
          others.push(...error.problems);
          break;
        }
      }
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    others.push(...(error.problems ?? [error.message]));
  }
  if (signal.aborted) return;
  asked = { question, masks };
  found = news;
  showProblems(byId("canvas-problems"), others);
  told();
}

const askSoon = debounced(ask, 250);

history.addEventListener("change", askSoon);
settings.addEventListener("change", askSoon);
