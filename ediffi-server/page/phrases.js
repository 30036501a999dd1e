// Where phrases stand in a prompt. The server decides; this shows it while one types.

const WORD = /[\p{L}\p{M}\p{N}_]/u;

/** The places where a phrase stands as whole words: pairs of first and one past the last UTF-16 unit. */
export function places(prompt, phrase) {
  const words = phrase.trim().split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (words.length === 0) return [];
  const pattern = new RegExp(words.join("\\s+"), "giu");
  const found = [];
  for (const match of prompt.matchAll(pattern)) {
    const [start, end] = [match.index, match.index + match[0].length];
    const joined = (left, right) => left !== undefined && right !== undefined && WORD.test(left) && WORD.test(right);
    if (!joined(prompt[start - 1], prompt[start]) && !joined(prompt[end - 1], prompt[end])) found.push([start, end]);
  }
  return found;
}

/** A selection, grown to whole words and without the spaces and signs around them; `null` if no word is in it. */
export function wholeWords(prompt, start, end) {
  let [from, to] = [start, end];
  while (from < to && !WORD.test(prompt[from])) from += 1;
  while (to > from && !WORD.test(prompt[to - 1])) to -= 1;
  if (from === to) return null;
  while (from > 0 && WORD.test(prompt[from - 1])) from -= 1;
  while (to < prompt.length && WORD.test(prompt[to])) to += 1;
  return [from, to];
}

/** The places that a layer paints. */
export function painted(prompt, layer) {
  if (layer.occurrence.span) {
    // Characters, not UTF-16 units.
    const { start, end } = layer.occurrence.span;
    const units = (count) => [...prompt].slice(0, count).join("").length;
    return [[units(start), units(end)]];
  }
  const found = places(prompt, layer.phrase);
  return layer.occurrence.nth ? found.slice(layer.occurrence.nth - 1, layer.occurrence.nth) : found;
}
