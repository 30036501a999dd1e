// The token that a server may ask for.

import { onTokenWanted } from "./api.js";
import { byId } from "./dom.js";

const form = byId("token-form");
const field = byId("token");

onTokenWanted((message) => new Promise((resolve) => {
  form.hidden = false;
  byId("token-problem").textContent = message;
  field.value = "";
  field.focus();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    form.hidden = true;
    resolve(field.value.trim());
  }, { once: true });
}));
