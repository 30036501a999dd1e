// The document with its history. A document is never changed: a step makes a new one, which shares what stays the same.
//
// Document = { width, height, strength, layers: [Layer], current: id | null, edit: Edit | null }
// Layer = { id, kind: "phrase" | "redraw", colour, phrase, weight, occurrence, sigma, mask: Uint8Array, file: base64 | null }
// Edit = { picture: base64, width, height, url, strength: number | null }
//
// A layer of kind "redraw" is the mask of an edit: what is drawn anew. `file` is the file it came from, while it is unchanged.

const MOST = 100;

/** Announces every change with the event "change". */
class History extends EventTarget {
  #past = [];
  #future = [];
  #now = { width: 512, height: 512, strength: { weight: 0.4 }, layers: [], current: null, edit: null };
  #key = null;

  get now() { return this.#now; }
  get canUndo() { return this.#past.length > 0; }
  get canRedo() { return this.#future.length > 0; }
  get current() { return this.#now.layers.find((layer) => layer.id === this.#now.current) ?? null; }

  /** Goes on to a document. Steps with the same `key`, such as those of one slider, are undone together. */
  commit(change, key = null) {
    if (key === null || key !== this.#key) {
      this.#past.push(this.#now);
      if (this.#past.length > MOST) this.#past.shift();
    }
    this.#key = key;
    this.#future = [];
    this.#set({ ...this.#now, ...change });
  }

  /** Changes what is no step of its own: which layer is current. */
  choose(current) { if (current !== this.#now.current) this.#set({ ...this.#now, current }); }

  /** Changes one layer. */
  change(id, change, key = null) {
    const layers = this.#now.layers.map((layer) => (layer.id === id ? { ...layer, ...change } : layer));
    this.commit({ layers }, key);
  }

  undo() { this.#move(this.#past, this.#future); }
  redo() { this.#move(this.#future, this.#past); }

  #move(from, to) {
    if (from.length === 0) return;
    to.push(this.#now);
    this.#key = null;
    this.#set(from.pop());
  }

  #set(next) {
    this.#now = next;
    this.dispatchEvent(new Event("change"));
  }
}

export const history = new History();

const COLOURS = ["#d63c3c", "#3c5ad6", "#2f9e5b", "#e0a019", "#8e44c9", "#12a0a8", "#e0589b", "#8a5a33", "#7cb518", "#607080"];
export const REDRAW = "#ff5a1f";

/** The next layer's colour: the first that no layer has. */
function freshColour(layers) {
  const free = COLOURS.find((colour) => layers.every((layer) => layer.colour !== colour));
  return free ?? COLOURS[layers.length % COLOURS.length];
}

let made = 0;

/** A layer with an empty mask, not yet part of the document. */
export function newLayer(layers, values = {}) {
  const { width, height } = history.now;
  made += 1;
  const own = { id: `layer-${made}`, kind: "phrase", phrase: "", weight: 1, occurrence: "all", sigma: [0, null], file: null };
  return { ...own, colour: freshColour(layers), mask: new Uint8Array(width * height), ...values };
}

/** Adds a layer and makes it the current one. */
export function addLayer(values = {}) {
  const layer = newLayer(history.now.layers, values);
  history.commit({ layers: [...history.now.layers, layer], current: layer.id });
  return layer;
}

/** The layer that says what is drawn anew. It is made when it is first asked for. */
export function redrawLayer() {
  const there = history.now.layers.find((layer) => layer.kind === "redraw");
  if (there) history.choose(there.id);
  return there ?? addLayer({ kind: "redraw", colour: REDRAW });
}
