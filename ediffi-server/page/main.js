// The painting page: what the modules show is put together here.

import "./theme.js";
import "./token.js";
import "./board.js";
import "./keys.js";
import "./layers.js";
import * as api from "./api.js";
import { byId, h } from "./dom.js";
import { drawOrCancel, follow } from "./drawing.js";
import * as gallery from "./gallery.js";
import { history, redrawLayer } from "./history.js";
import { fitSheet, startFrom } from "./open.js";
import { buildOptions } from "./options.js";
import { showPane } from "./panes.js";
import { showPrompt } from "./prompt.js";
import { restore } from "./request.js";
import { showSeed } from "./seed.js";
import { settings } from "./settings.js";
import { showSources } from "./sources.js";
import { showToolbar } from "./toolbar.js";
import { attempt, clear, forget, onActions } from "./viewer.js";

byId("draw").addEventListener("click", drawOrCancel);

const plainFile = (item) => api.picture(item.url, true);

onActions({
  async start(item) {
    await startFrom(await plainFile(item));
    showPane("sheet");
  },
  async inpaint(item) {
    await startFrom(await plainFile(item));
    redrawLayer();
    showPane("sheet");
  },
  async restore(item) {
    const { request } = await api.read(await api.picture(item.url));
    await restore(request);
    showPane("sheet");
  },
  async remove(item) {
    await api.remove(item.job);
    clear();
    await Promise.all(gallery.drop(item.job).map(forget));
  },
});

/** Shows the models, where there are several. */
function showModels() {
  const { models } = settings.server;
  const select = byId("model");
  select.replaceChildren(...models.map(({ id }) => h("option", { value: id }, id)));
  select.value = settings.model?.id ?? "";
  byId("model-field").hidden = models.length < 2;
  select.addEventListener("change", () => {
    settings.set({ model: select.value, preset: "", lastStage: "", stages: {} });
    buildOptions();
    fitSheet();
  });
}

let size = "";
settings.addEventListener("change", () => {
  const { width, height, model } = settings.now;
  const next = JSON.stringify([width, height, model]);
  if (size !== "" && next !== size) fitSheet();
  size = next;
});

async function begin() {
  showToolbar();
  showPane("sheet");
  showSeed();
  showSources();
  settings.server = await api.capabilities();
  showModels();
  buildOptions();
  fitSheet();
  settings.set({});
  showPrompt();
  const [running] = await gallery.fill();
  if (running) await follow(running);
}

history.choose(null);
attempt(begin);
