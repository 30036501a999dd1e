// Dark and light: as the system has it, or as chosen.

import { announce, byId } from "./dom.js";

const KEY = "ediffi-theme";
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

const chosen = localStorage.getItem(KEY);
if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

byId("theme").addEventListener("click", () => {
  const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  root.dataset.theme = next;
  localStorage.setItem(KEY, next);
  announce(next === "dark" ? "Dark" : "Light");
});
