// The pictures of the session, newest first.

import * as api from "./api.js";
import { byId, h } from "./dom.js";
import { look, urlOf } from "./viewer.js";

const list = byId("gallery");
const MOST = 200;
let items = [];

// A picture is fetched when it comes into sight.
const sight = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    sight.unobserve(target);
    const item = items.find(({ url }) => url === target.dataset.url);
    if (item) urlOf(item).then(({ url }) => { target.src = url; }, () => target.closest("li")?.classList.add("gone"));
  }
}, { rootMargin: "200px" });

/** The pictures of a job, as the gallery keeps them. */
export const itemsOf = (job) => job.images.map((image) => ({ ...image, job: job.id, prompt: job.prompt }));

/** Adds a picture, once. */
export function add(item) {
  if (items.some(({ url }) => url === item.url)) return;
  items = [item, ...items].slice(0, MOST);
  const image = h("img", { alt: "", "data-url": item.url, width: item.width, height: item.height });
  const label = `Look at: ${item.prompt || "no words"}, seed ${item.seed}`;
  const button = h("button", { type: "button", "aria-label": label, title: `${item.prompt}\nseed ${item.seed}` }, image);
  const entry = h("li", { "data-job": item.job, "data-url": item.url }, button);
  button.addEventListener("click", () => {
    look(item).catch(() => entry.classList.add("gone"));
    document.dispatchEvent(new CustomEvent("wanted", { detail: "picture" }));
  });
  list.prepend(entry);
  sight.observe(image);
  while (list.children.length > MOST) list.lastElementChild.remove();
  byId("gallery-empty").hidden = true;
}

/** Takes the pictures of a job out, and returns them. */
export function drop(job) {
  for (const entry of [...list.children].filter((each) => each.dataset.job === job)) entry.remove();
  const gone = items.filter((item) => item.job === job);
  items = items.filter((item) => item.job !== job);
  byId("gallery-empty").hidden = items.length > 0;
  return gone;
}

/** Fills the gallery with what the server keeps. Returns the jobs that are not finished, newest first. */
export async function fill() {
  const jobs = await api.jobs();
  for (const job of jobs.toReversed()) itemsOf(job).forEach(add);
  return jobs.filter(({ state }) => state === "queued" || state === "running");
}
