// The pictures of docs/painting-page.md.

import { drag, open, pickWords } from "./browser.mjs";

const SIZES = [
  { name: "phone", viewport: { width: 360, height: 740 }, colorScheme: "light", hasTouch: true, isMobile: true },
  { name: "laptop", viewport: { width: 1280, height: 800 }, colorScheme: "light" },
  { name: "wide", viewport: { width: 2560, height: 1440 }, colorScheme: "dark" },
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

const APPLE = [[0.22, 0.52], [0.26, 0.62], [0.32, 0.66], [0.36, 0.58], [0.3, 0.5]];

/** Writes a PNG file for each size: two regions and what is drawn of them. */
export async function screenshots(browser, url, folder, prompt) {
  for (const { name, ...options } of SIZES) {
    const { page, context, complaints } = await open(browser, url, options);
    await page.fill("#prompt", prompt);
    await page.fill("#seed", "5");
    await pickWords(page, "red apple");
    await page.locator("#size").fill("22");
    await page.evaluate(() => document.getElementById("sheet").scrollIntoView({ block: "center" }));
    await (options.hasTouch ? touch : drag)(page, APPLE);
    await page.waitForFunction(() => document.querySelector("#layers .share").textContent !== "0 %");
    await page.evaluate(() => scrollTo(0, 0));
    await pickWords(page, "cat");
    await page.locator("#tools input[value=ellipse]").check({ force: true });
    await page.evaluate(() => document.getElementById("sheet").scrollIntoView({ block: "center" }));
    await drag(page, [[0.54, 0.3], [0.92, 0.86]]);
    await page.waitForFunction(() => document.querySelectorAll("#layers .token").length > 0);
    if (name === "phone") await page.evaluate(() => document.querySelector(".easel").scrollIntoView({ block: "start" }));
    if (name !== "phone") {
      await page.click("#draw");
      await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("Drawn"), null, { timeout: 120_000 });
      await page.waitForTimeout(500);
    }
    if (name === "laptop") await page.click("#tab-sheet");
    await page.mouse.move(0, 0);
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({ path: `${folder}/page-${name}.png` });
    if (complaints.length > 0) throw new Error(complaints.join("\n"));
    await context.close();
  }
}
