// The settings drawer: everything about a request that is neither words nor paint.

import { byId, h, showProblems } from "./dom.js";
import { settings } from "./settings.js";

const body = byId("options-body");
/** Functions that show a setting as it is now. */
let shows = [];

function field(label, control, hint = null) {
  return h("label", { class: "field" }, h("span", {}, label), control, hint && h("small", {}, hint));
}

/** A field for a whole or a decimal number; empty is `null`. */
function number(get, set, attributes) {
  const input = h("input", { type: "number", ...attributes, onchange: () => set(input.value === "" ? null : Number(input.value)) });
  shows.push(() => { if (document.activeElement !== input) input.value = get() ?? ""; });
  return input;
}

function select(get, set, choices, attributes = {}) {
  const input = h("select", { ...attributes, onchange: () => set(input.value) }, choices.map(([value, text]) => h("option", { value }, text)));
  shows.push(() => { input.value = get() ?? ""; });
  return input;
}

function negative() {
  const input = h("textarea", { id: "negative", rows: 2, oninput: () => settings.set({ negative: input.value }) });
  shows.push(() => { if (input.value !== settings.now.negative) input.value = settings.now.negative; });
  return field("Negative prompt", input, "What the picture leads away from.");
}

function stageTable() {
  const rows = settings.model.stages.map(({ name, steps }) => {
    const own = (key) => () => settings.now.stages[name]?.[key] ?? null;
    const set = (key) => (value) => settings.setStage(name, { [key]: value === "" ? null : value });
    const label = (text) => ({ "aria-label": `${text} of stage ${name}` });
    const row = h("tr", {}, h("th", { scope: "row" }, name),
      h("td", {}, number(own("steps"), set("steps"), { min: 1, step: 1, placeholder: steps, ...label("Steps") })),
      h("td", {}, number(own("guidance_scale"), set("guidance_scale"), { min: 0, step: "any", placeholder: "own", ...label("Guidance") })),
      h("td", {}, select(own("solver"), set("solver"), [["", "own"], ...settings.server.solvers.map((solver) => [solver, solver])], label("Solver"))));
    shows.push(() => {
      const idle = settings.stages.every((stage) => stage.name !== name);
      for (const control of row.querySelectorAll("input, select")) control.disabled = idle;
    });
    return row;
  });
  const head = ["Stage", "Steps", "Guidance", "Solver"].map((text) => h("th", { scope: "col" }, text));
  return h("div", { class: "table-box" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
}

/** Whatever else a request can say, as JSON. */
function further() {
  const input = h("textarea", { id: "further", rows: 3, spellcheck: "false", class: "code", onchange: () => {
    try {
      const extra = input.value.trim() === "" ? {} : JSON.parse(input.value);
      if (typeof extra !== "object" || extra === null || Array.isArray(extra)) throw new Error("it has to be an object: { … }");
      showProblems(byId("options-problems"), []);
      settings.set({ extra });
    } catch (error) {
      showProblems(byId("options-problems"), [`Further settings: ${error.message}`]);
    }
  } });
  shows.push(() => {
    if (document.activeElement === input) return;
    input.value = Object.keys(settings.now.extra).length > 0 ? JSON.stringify(settings.now.extra, null, 1) : "";
  });
  return field("Further settings", input, "Any other key of a request, as JSON: a schedule, tiling, micro-conditioning.");
}

/** Builds the drawer for the chosen model. */
export function buildOptions() {
  shows = [];
  const { model } = settings;
  const now = (key) => () => settings.now[key];
  const set = (key) => (value) => settings.set({ [key]: value });
  const { limits } = settings.server;
  const presets = model.presets.map(({ name, description }) => [name, description ? `${name}: ${description}` : name]);
  const last = model.stages.at(-1);
  const lasts = model.stages.map(({ name, width, height }, at) => [at === model.stages.length - 1 ? "" : name, `${name}, ${width}×${height} pixels`]);
  const side = (key) => number(now(key), set(key), { min: 1, step: 1, placeholder: last[key] });
  body.replaceChildren(...[
    negative(),
    presets.length > 0 && field("Preset", select(now("preset"), set("preset"), [["", "the model's own settings"], ...presets], { id: "preset" })),
    field("Draw up to", select(now("lastStage"), set("lastStage"), lasts.toReversed(), { id: "last-stage" }), "Earlier stages are small and quick."),
    h("div", { class: "pair" },
      field("Pictures", number(now("images"), (value) => settings.set({ images: value ?? 1 }), { min: 1, max: limits.images, step: 1 }), "Each has the next seed."),
      field("Preview every … steps", number(now("previews"), (value) => settings.set({ previews: value ?? 0 }), { min: 0, step: 1 }), "0 for none.")),
    h("div", { class: "pair" }, field("Width", side("width")), field("Height", side("height"))),
    h("h3", {}, "Stages"), h("p", { class: "muted" }, "Empty is the model's own."), stageTable(), further(),
  ].filter(Boolean));
  showOptions();
}

function showOptions() { for (const show of shows) show(); }

settings.addEventListener("change", showOptions);
