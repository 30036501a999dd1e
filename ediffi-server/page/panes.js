// Canvas and picture: side by side where there is room, else one of them.

import { byId } from "./dom.js";
import { history } from "./history.js";
import { lookedUrl } from "./viewer.js";

const TABS = ["sheet", "picture"];

/** Shows one of the two, where there is no room for both. */
export function showPane(name) {
  for (const each of TABS) {
    const chosen = each === name;
    const tab = byId(`tab-${each}`);
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    byId(`pane-${each}`).classList.toggle("away", !chosen);
  }
}

for (const name of TABS) {
  const tab = byId(`tab-${name}`);
  tab.addEventListener("click", () => showPane(name));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    const other = TABS.find((each) => each !== name);
    showPane(other);
    byId(`tab-${other}`).focus();
  });
}
document.addEventListener("wanted", (event) => showPane(event.detail));

/** The picture below the paint: the one to start from, or the last one where that is wished. */
function showUnder() {
  const { edit, width, height } = history.now;
  const looked = byId("under-switch").checked ? lookedUrl() : null;
  const url = edit?.url ?? looked;
  const under = byId("under");
  under.hidden = url === null;
  if (url !== null && under.getAttribute("src") !== url) under.src = url;
  under.classList.toggle("faint", edit === null);
  byId("under-field").hidden = edit !== null || lookedUrl() === null;
  document.documentElement.style.setProperty("--ratio", width / height);
}

byId("under-switch").addEventListener("change", showUnder);
history.addEventListener("change", showUnder);
document.addEventListener("looked", showUnder);
