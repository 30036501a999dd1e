// What is asked for beside the document: words, numbers, the style, and what the server can do.

/** Announces every change with the event "change". */
class Settings extends EventTarget {
  #now = {
    prompt: "", negative: "", seed: "0", locked: false, images: 1, model: null, preset: "", lastStage: "",
    width: null, height: null, previews: 3, stages: {}, style: { strength: 1, references: [] }, extra: {},
  };

  /** The capabilities of the server; `null` until they are known. */
  server = null;

  get now() { return this.#now; }

  /** The chosen model's capabilities. */
  get model() {
    const models = this.server?.models ?? [];
    const wanted = this.#now.model ?? this.server?.default_model;
    return models.find((model) => model.id === wanted) ?? models[0] ?? null;
  }

  /** The stages that run, in their order. */
  get stages() {
    const stages = this.model?.stages ?? [];
    const last = stages.findIndex((stage) => stage.name === this.#now.lastStage);
    return last < 0 ? stages : stages.slice(0, last + 1);
  }

  set(change) {
    this.#now = { ...this.#now, ...change };
    this.dispatchEvent(new Event("change"));
  }

  /** Sets a value of one stage; `null` is the model's own. */
  setStage(name, change) {
    this.set({ stages: { ...this.#now.stages, [name]: { ...this.#now.stages[name], ...change } } });
  }

  /** Takes a seed by chance. */
  roll() {
    this.set({ seed: String(crypto.getRandomValues(new Uint32Array(1))[0]) });
  }
}

export const settings = new Settings();

/** Width and height of the finished picture, as far as the page can tell. */
export function pictureSize(edit) {
  const { width, height } = settings.now;
  const last = settings.stages.at(-1) ?? { width: 64, height: 64 };
  if (width && height) return { width, height };
  return edit ? { width: edit.width, height: edit.height } : { width: last.width, height: last.height };
}
