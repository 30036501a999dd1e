// Where what the server says against a request is shown: beside the control that it is about, in its words.

import { placeAtLayers } from "./bindings.js";
import { byId, showProblems } from "./dom.js";
import { history } from "./history.js";
import { settings } from "./settings.js";

/** Places beside controls, and what the problems say that belong there. The first that fits is taken. */
const PLACES = [
  ["style-problems", /style|CLIP embedding/i],
  ["edit-problems", /\bedit\b|picture to edit|edit_pixels/i],
  ["canvas-problems", /canvas|region|mask|phrase|paint weight/i],
  ["options-problems", /negative prompt|stage|step|solver|guidance|schedule|preset|width|height|size|images|micro|tiling|limit is/i],
  ["prompt-problems", /prompt|tokens|characters/i],
];

/** Shows problems where they belong, and says so where one draws. */
export function placeProblems(problems) {
  const rest = placeAtLayers(problems);
  const taken = new Map(PLACES.map(([id]) => [id, []]));
  for (const problem of rest) {
    const place = PLACES.find(([, pattern]) => pattern.test(problem));
    if (place) taken.get(place[0]).push(problem);
  }
  for (const [id, own] of taken) showProblems(byId(id), own);
  byId("options-button").classList.toggle("troubled", taken.get("options-problems").length > 0);
  showProblems(byId("draw-problems"), problems);
}

/** Takes back what was said when drawing was tried last. */
export const clearProblems = () => placeProblems([]);

// What was said of the last try may not hold any more.
const stale = () => showProblems(byId("draw-problems"), []);
history.addEventListener("change", stale);
settings.addEventListener("change", stale);
