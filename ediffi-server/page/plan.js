// The plan: a bar for each stage, a cell for each step in the colour of its expert, with noise levels below.
// While a picture is drawn, the bars fill.

import * as api from "./api.js";
import { byId, debounced, h, showProblems } from "./dom.js";
import { history } from "./history.js";
import { planRequest } from "./request.js";
import { settings } from "./settings.js";

const place = byId("plan");
let abort = null;
let asked = "";
let bars = [];

const sigma = (value) => Number(value.toPrecision(3)).toString();

/** What an expert of a stage is called. */
const expertName = (index, count) => (count === 1 ? "one expert" : `expert ${index + 1} of ${count}`);

/** Noise levels worth a label: the first, those where another expert begins, the last. */
function labels(steps) {
  const changed = steps.map((step, at) => at === 0 || step.expert !== steps[at - 1].expert);
  const shown = steps.map((_, at) => changed[at] || at === steps.length - 1);
  // The last one gives way to a change beside it.
  const near = shown.lastIndexOf(true, steps.length - 2);
  if (steps.length - 1 - near < steps.length / 6) shown[steps.length - 1] = changed[steps.length - 1];
  return shown;
}

function bar({ name, width, height, experts, steps }) {
  const count = settings.model.stages.find((stage) => stage.name === name)?.experts ?? experts.length;
  const shown = labels(steps);
  const cells = steps.map((step, at) => {
    const title = `Step ${at + 1} of ${steps.length}: ${expertName(step.expert, count)}, σ ${sigma(step.sigma)}`;
    return h("span", { class: `step expert-${step.expert % 6}`, title });
  });
  const ticks = steps.map((step, at) => h("span", { class: "tick" }, shown[at] ? h("b", {}, `${at === 0 ? "σ " : ""}${sigma(step.sigma)}`) : ""));
  const ranges = experts.map(({ index, sigma_from: from, sigma_to: to }) => {
    const made = steps.filter((step) => step.expert === index).length;
    return `${expertName(index, count)}, noise from ${sigma(from)} to ${sigma(to ?? 0)}: ${made} steps`;
  });
  const spoken = `Stage ${name}, ${width} by ${height} pixels, ${steps.length} steps. ${ranges.join("; ")}.`;
  const chart = h("div", { class: "cells", role: "img", "aria-label": spoken }, h("div", { class: "steps" }, cells), h("div", { class: "ticks" }, ticks));
  const element = h("div", { class: "stage" }, h("div", { class: "stage-name" }, h("b", {}, name), h("span", {}, ` ${width}×${height}`)), chart);
  element.style.setProperty("--steps", Math.max(1, steps.length));
  return { name, element, cells };
}

async function ask() {
  if (!settings.model) return;
  const body = { model: settings.model.id, request: planRequest() };
  const question = JSON.stringify(body);
  if (question === asked) return;
  asked = question;
  abort?.abort();
  abort = new AbortController();
  const { signal } = abort;
  try {
    const { stages } = await api.plan(body, signal);
    if (signal.aborted) return;
    bars = stages.map(bar);
    place.replaceChildren(...bars.map(({ element }) => element));
    showProblems(byId("plan-problems"), []);
  } catch (error) {
    if (error.name === "AbortError") return;
    asked = "";
    showProblems(byId("plan-problems"), error.problems ?? [error.message]);
  }
}

/** Fills the bars up to a step; `null` shows the plan as it is before drawing. */
export function showProgress(progress) {
  place.classList.toggle("running", progress !== null);
  const now = progress ? bars.findIndex(({ name }) => name === progress.stage) : -1;
  bars.forEach(({ cells }, index) => cells.forEach((cell, at) => {
    const done = progress !== null && (index < now || (index === now && at < progress.step));
    cell.classList.toggle("done", done);
  }));
}

const askSoon = debounced(ask, 200);
settings.addEventListener("change", askSoon);
history.addEventListener("change", askSoon);
