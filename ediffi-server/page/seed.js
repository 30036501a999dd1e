// The seed: typed, rolled, or kept.

import { byId, icon } from "./dom.js";
import { settings } from "./settings.js";

const field = byId("seed");
const lock = byId("lock");
const MOST = 2n ** 64n - 1n;

field.addEventListener("change", () => {
  const digits = field.value.replace(/\D/g, "") || "0";
  const seed = BigInt(digits) > MOST ? MOST : BigInt(digits);
  // Who types a seed wants it.
  settings.set({ seed: String(seed), locked: true });
  field.value = settings.now.seed;
});
lock.addEventListener("click", () => settings.set({ locked: !settings.now.locked }));
byId("dice").addEventListener("click", () => settings.roll());

/** Shows the seed as it is now. */
export function showSeed() {
  const { seed, locked } = settings.now;
  if (document.activeElement !== field) field.value = seed;
  if (lock.getAttribute("aria-pressed") === String(locked) && lock.firstChild) return;
  lock.setAttribute("aria-pressed", String(locked));
  lock.title = locked ? "The seed is kept (L)" : "Each picture has another seed (L)";
  lock.replaceChildren(icon(locked ? "lock" : "unlock"));
}

settings.addEventListener("change", showSeed);
