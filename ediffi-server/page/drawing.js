// Drawing: a request becomes a job, which is followed to its end, or cancelled.

import * as api from "./api.js";
import { announce, byId } from "./dom.js";
import { add, itemsOf } from "./gallery.js";
import { showProgress } from "./plan.js";
import { clearProblems, placeProblems } from "./problems.js";
import { requestOf } from "./request.js";
import { settings } from "./settings.js";
import { expect, finished, preview } from "./viewer.js";

const button = byId("draw");
const status = byId("status");
let job = null;
let starting = false;
/** Cancelled before the server has taken it. */
let unwanted = false;

/** Draws what is on the page, or cancels what is being drawn. */
export const drawOrCancel = () => (job || starting ? cancel() : draw());

async function draw() {
  if (!settings.model) return;
  if (!settings.now.locked) settings.roll();
  clearProblems();
  [starting, unwanted] = [true, false];
  show("Sending the request…", 0);
  try {
    const request = await requestOf();
    const { previews } = settings.now;
    job = await api.submit({ model: settings.model.id, request, previews: previews > 0 ? previews : undefined });
    document.dispatchEvent(new CustomEvent("wanted", { detail: "picture" }));
  } catch (error) {
    starting = false;
    placeProblems(error.problems ?? [error.message]);
    show("", null);
    return;
  }
  starting = false;
  if (unwanted) cancel();
  await follow(job);
}

/** Cancels the job that is followed. */
export async function cancel() {
  unwanted = starting;
  if (!job) return;
  show("Cancelling…", null);
  try {
    await api.cancel(job.id);
  } catch (error) {
    if (error.status !== 404) placeProblems(error.problems ?? [error.message]);
  }
}

const ORDINALS = ["next in the queue", "second in the queue", "third in the queue"];
const place = (position) => ORDINALS[position - 1] ?? `number ${position} in the queue`;

/** Shows how far a job is. */
function show(text, fraction) {
  const running = job !== null || starting;
  status.textContent = text;
  button.textContent = running ? "Cancel" : "Draw";
  button.classList.toggle("cancel", running);
  byId("bar").style.width = `${100 * (fraction ?? 0)}%`;
  document.body.classList.toggle("drawing", running);
}

function showJob(told) {
  job = told;
  if (told.state === "queued") show(told.position ? `You are ${place(told.position)}.` : "In the queue.", 0);
  if (told.state === "running") showSteps(told.progress);
}

/** How far is said to screen readers once a stage, not at every step. */
let spoken = "";
function showSteps(progress) {
  if (!progress?.stage) return show("Beginning…", 0);
  const { stage, stage_index: index, stages, step, steps, fraction } = progress;
  const text = `Stage ${index + 1} of ${stages}, ${stage}: step ${step} of ${steps}`;
  if (spoken !== stage) announce(`Drawing stage ${stage}`);
  spoken = stage;
  showProgress(progress);
  return show(text, fraction);
}

const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

/** Follows a job to its end. A stream that breaks off is taken up again. */
export async function follow(begun) {
  job = begun;
  spoken = "";
  status.setAttribute("aria-live", "off");
  expect(job.prompt, job.seed, Math.max(1, settings.now.images));
  showJob(begun);
  const act = (name, data) => {
    if (name === "job") showJob(data);
    if (name === "progress") showSteps(data);
    if (name === "preview") preview(data);
    if (name === "image") arrive({ ...data, job: begun.id, prompt: begun.prompt });
  };
  const over = () => !["queued", "running"].includes(job.state);
  for (let failures = 0; !over() && failures < 20; failures += 1) {
    try {
      await api.events(begun.id, act);
      if (!over()) showJob(await api.job(begun.id));
    } catch (error) {
      if (error.status === 404) {
        job = { ...job, state: "failed", error: { message: error.message, problems: error.problems } };
      } else {
        await pause(Math.min(5000, 200 * 2 ** failures));
      }
    }
  }
  end();
}

function arrive(item) {
  add(item);
  finished(item).catch((error) => placeProblems(error.problems ?? [error.message]));
}

const seconds = ({ started, ended }) => (started && ended ? ` in ${(ended - started).toFixed(1)} s` : "");

function end() {
  const { state, error, images } = job;
  itemsOf(job).forEach(arrive);
  const told = job;
  job = null;
  showProgress(null);
  const texts = { finished: `Drawn${seconds(told)}.`, cancelled: "Cancelled.", failed: "It failed." };
  show(texts[state] ?? "The connection to the server is lost.", null);
  announce(texts[state] ?? status.textContent);
  if (state === "finished" && images.length === 0) status.textContent = "Drawn, but the server keeps no picture of it.";
  if (error) placeProblems(error.problems?.length > 0 ? error.problems : [error.message]);
}
