// The pictures of docs/painting-page.md.

import { writeFile } from "node:fs/promises";

import UPNG from "upng-js";

import { drag, open, pickWords } from "./browser.mjs";


/** Few colours, so that the files are small. */
const SIZES = [
  { name: "phone", colours: 256, viewport: { width: 360, height: 740 }, colorScheme: "light", hasTouch: true, isMobile: true },
  { name: "laptop", colours: 256, viewport: { width: 1280, height: 800 }, colorScheme: "light" },
  { name: "wide", colours: 128, viewport: { width: 2560, height: 1440 }, colorScheme: "dark" },
];

/** A finger's stroke over the sheet. */
async function touch(page, points) {
  const box = await page.locator("#sheet").boundingBox();
  const client = await page.context().newCDPSession(page);
  const at = ([x, y]) => [{ x: box.x + x * box.width, y: box.y + y * box.height }];
  await client.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: at(points[0]) });
  for (const point of points.slice(1)) await client.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: at(point) });
  await client.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
}

/** The page as a PNG file of few colours. */
async function shot(page, path, colours) {
  const { buffer } = Uint8Array.from(await page.screenshot());
  const { width, height } = UPNG.decode(buffer);
  await writeFile(path, Buffer.from(UPNG.encode(UPNG.toRGBA8(UPNG.decode(buffer)), width, height, colours)));
}

/** An apple on the left. */
const APPLE = [[0.26, 0.62], [0.34, 0.66], [0.31, 0.76], [0.23, 0.72], [0.27, 0.68]];

/** Paints two regions, with a finger where there is one. */
async function paint(page, { hasTouch }) {
  await page.fill("#prompt", "a red apple and a cat on a white background, noto style");
  await page.fill("#seed", "5");
  await pickWords(page, "red apple");
  await page.locator("#size").fill("22");
  await page.evaluate(() => document.getElementById("sheet").scrollIntoView({ block: "center" }));
  await (hasTouch ? touch : drag)(page, APPLE);
  await page.waitForFunction(() => document.querySelector("#layers .share").textContent !== "0 %");
  await page.evaluate(() => scrollTo(0, 0));
  await pickWords(page, "cat");
  await page.locator("#tools input[value=ellipse]").check({ force: true });
  await page.evaluate(() => document.getElementById("sheet").scrollIntoView({ block: "center" }));
  await drag(page, [[0.46, 0.08], [0.94, 0.54]]);
  await page.waitForFunction(() => document.querySelectorAll("#layers .token").length > 0);
  await page.mouse.move(0, 0);
  await page.evaluate(() => scrollTo(0, 0));
}

/** Draws what is painted, for the gallery of the pictures that follow. */
async function draw(browser, url) {
  const { page, context } = await open(browser, url);
  await paint(page, {});
  await page.click("#draw");
  await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("Drawn"), null, { timeout: 600_000 });
  await context.close();
}

/** Writes a PNG file for each size: two regions and, where there is room, what is drawn of them. */
export async function screenshots(browser, url, folder) {
  await draw(browser, url);
  for (const { name, colours, ...options } of SIZES) {
    const { page, context, complaints } = await open(browser, url, options);
    await paint(page, options);
    if (name === "wide") await page.locator("#gallery button").first().click();
    await page.waitForTimeout(1000);
    await shot(page, `${folder}/page-${name}.png`, colours);
    if (complaints.length > 0) throw new Error(complaints.join("\n"));
    await context.close();
  }
}
