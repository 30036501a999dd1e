// Small helpers around the document.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element: `h("button", { class: "quiet", onclick }, "Text")`. `null` and `false` attributes and children are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An icon of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon, and a label that screen readers read and the pointer shows. */
export const iconButton = (name, label, onclick, attributes = {}) =>
  h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));

/** Shows problems in an element of role alert, or hides it where there is none. */
export function showProblems(element, problems) {
  element.hidden = problems.length === 0;
  const same = element.dataset.shown === problems.join("\n");
  element.dataset.shown = problems.join("\n");
  if (!same) element.replaceChildren(...problems.map((problem) => h("p", {}, problem)));
}

/** Calls `act` when it has not been asked to for `wait` milliseconds. */
export function debounced(act, wait) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, wait);
  };
}

/** Whether keys belong to what has the focus, since one writes in it. */
export function isWriting(target) {
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement
    || (target instanceof HTMLInputElement && !["range", "checkbox", "radio", "color", "file", "button"].includes(target.type));
}

/** Says something to screen readers. */
export function announce(text) {
  const live = byId("live");
  if (live.textContent !== text) live.textContent = text;
}
