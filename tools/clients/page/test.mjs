// A user at the painting page, in a real browser: `node test.mjs URL [folder for screenshots]`.
//
// It paints two regions, picks their words, draws, restores everything from the PNG file, inpaints, cancels, and does what a user
// without a mouse does. It fails on any error of the console, any breach of the content security policy and any serious fault that axe
// finds. A server with the shipped model stands at URL.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

import { drag, dropFile, open, pickWords, start } from "./browser.mjs";
import { screenshots } from "./screenshots.mjs";

const [url, folder] = process.argv.slice(2);
const PROMPT = "a red apple left of a cat, noto style";
const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await start();
const complaints = [];
let steps = 0;

/** Runs one step of the test on a page of its own, or on a given one. */
async function step(name, act, options) {
  const begun = performance.now();
  const view = await open(browser, url, options);
  try {
    await act(view);
  } catch (error) {
    await view.page.screenshot({ path: `${process.env.TMPDIR ?? "/tmp"}/page-failed.png` });
    console.error(`failed: ${name}`);
    throw error;
  }
  complaints.push(...view.complaints.map((complaint) => `${name}: ${complaint}`));
  await view.context.close();
  steps += 1;
  console.log(`ok  ${name} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
}

const text = (page, selector) => page.locator(selector).first().textContent();
const layers = (page) => page.locator("#layers .layer").count();

/** Chooses the last stage in the settings, and few steps. */
async function drawUpTo(page, stage) {
  await page.click("#options-button");
  await page.selectOption("#preset", "fast");
  await page.selectOption("#last-stage", { label: (await page.locator("#last-stage option").allTextContents()).find((option) => option.startsWith(`${stage},`)) });
  await page.keyboard.press("Escape");
}

/** Two regions with their words. */
async function paintTwo(page) {
  await page.fill("#prompt", PROMPT);
  await pickWords(page, "red apple");
  await drag(page, [[0.2, 0.5], [0.3, 0.7], [0.35, 0.55]]);
  await pickWords(page, "cat");
  await page.keyboard.press("o");
  await drag(page, [[0.55, 0.3], [0.9, 0.85]]);
  await page.waitForFunction(() => document.querySelectorAll("#layers .token").length > 0);
}

/** Draws, and returns the request that was sent, once the picture is there. */
async function drawn(page, begin = () => page.click("#draw")) {
  const sent = page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/api/v1/jobs"));
  await begin();
  const { request } = JSON.parse((await sent).postData());
  await page.waitForFunction(() => /^(Drawn|It failed)/.test(document.getElementById("status").textContent), null, { timeout: 180_000 });
  assert.match(await text(page, "#status"), /^Drawn in/, await text(page, "#draw-problems"));
  await page.waitForSelector("#actions a[download]");
  return request;
}

/** The file behind "Download". */
async function download(page) {
  const waiting = page.waitForEvent("download");
  await page.click("#actions a[download]");
  return readFile(await (await waiting).path());
}

/** The pixels of a picture file, or of the mask of an edit: [red, green, blue, …] at a size. */
const pixels = (page, file) => page.evaluate(async (base64) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return { width: bitmap.width, height: bitmap.height, data: [...context.getImageData(0, 0, bitmap.width, bitmap.height).data] };
}, Buffer.from(file).toString("base64"));

/** The serious faults that axe finds. */
async function faults(page) {
  // The policy of the page lets no script in that is not the server's; evaluation by the debugger is not bound by it.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(" | ")}`);
}

await step("the first paint comes within a second, from under 300 kB", async ({ page, transferred }) => {
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
  const bytes = [...transferred.values()].reduce((sum, length) => sum + length, 0);
  console.log(`    first contentful paint ${Math.round(paint)} ms, ${transferred.size} files, ${(bytes / 1000).toFixed(0)} kB`);
  assert.ok(paint < 1000, `first paint after ${paint} ms`);
  assert.ok(bytes < 300_000, `${bytes} bytes`);
  assert.ok(transferred.size > 10);
});

/** The request inside a file. */
const stored = (page, file) => page.evaluate(async (base64) => {
  const body = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return (await (await fetch("/api/v1/read", { method: "POST", body })).json()).request;
}, Buffer.from(file).toString("base64"));

let png;
let sentFirst;

await step("two regions are painted, named and drawn, with previews", async ({ page }) => {
  await drawUpTo(page, "base");
  await paintTwo(page);
  assert.equal(await layers(page), 2);
  assert.match(await text(page, "#layers .current .tokens"), /cat/);
  assert.match(await text(page, "#layers .current .share"), /^1[0-9] %$/);
  assert.equal(await page.locator("#marks .bound").count(), 2);

  // Every preview that was shown. The picture that is shown then is no preview.
  await page.evaluate(() => {
    window.previews = 0;
    new MutationObserver(() => { window.previews += document.getElementById("shown").src.startsWith("data:image/jpeg") ? 1 : 0; })
      .observe(document.getElementById("shown"), { attributeFilter: ["src"] });
  });
  await page.focus("#prompt");
  sentFirst = await drawn(page, () => page.keyboard.press("Control+Enter"));
  assert.ok(await page.evaluate(() => window.previews) >= 2, "previews");
  assert.ok(await page.evaluate(() => document.getElementById("shown").src.startsWith("blob:")));
  assert.deepEqual(sentFirst.canvas.regions.map(({ phrase }) => phrase), ["red apple", "cat"]);
  assert.equal(sentFirst.last_stage, "base");
  assert.ok((await page.locator("#gallery li").count()) >= 1);
  png = await download(page);
  assert.equal(png.subarray(1, 4).toString(), "PNG");
});

await step("everything comes back from the PNG file, to the bit", async ({ page }) => {
  await dropFile(page, png, "apple.png", "image/png", '#drop [data-kind="restore"]');
  await page.waitForFunction(() => document.querySelectorAll("#layers .layer").length === 2);
  assert.equal(await page.inputValue("#prompt"), PROMPT);
  assert.equal(await page.inputValue("#seed"), String(sentFirst.seed));
  assert.equal(await page.getAttribute("#lock", "aria-pressed"), "true");
  const again = await drawn(page);
  assert.deepEqual(again, await stored(page, png));
  assert.deepEqual(again.canvas.regions, sentFirst.canvas.regions);
  const [first, second] = [await pixels(page, png), await pixels(page, await download(page))];
  assert.deepEqual(second, first);
});

await step("a file without a request is refused in the server's words", async ({ page }) => {
  const plain = await page.evaluate(async () => (await new Promise((resolve) => { document.createElement("canvas").toBlob(resolve); })).arrayBuffer().then((buffer) => [...new Uint8Array(buffer)]));
  await dropFile(page, Buffer.from(plain), "plain.png", "image/png", '#drop [data-kind="restore"]');
  await page.waitForSelector("#notice:not([hidden])");
  assert.match(await text(page, "#notice"), /holds no request/);
});

await step("a part of a result is inpainted, and the rest stays", async ({ page }) => {
  await drawUpTo(page, "base");
  await page.fill("#prompt", "a red apple, noto style");
  await drawn(page);
  const before = await pixels(page, await download(page));
  await page.click("#actions >> text=Inpaint");
  await page.waitForSelector("#layers .current");
  assert.equal(await page.inputValue("#layers .current .phrase"), "Drawn anew");
  await page.keyboard.press("r");
  await drag(page, [[0.5, 0.5], [0.999, 0.999]]);
  await page.fill("#prompt", "a green apple, noto style");
  const { edit } = await drawn(page);
  const mask = await pixels(page, Buffer.from(edit.mask, "base64"));
  const at = (x, y) => mask.data[4 * (y * mask.width + x)];
  assert.deepEqual([mask.width, mask.height], [before.width, before.height]);
  assert.deepEqual([at(2, 2), at(2, mask.height - 3), at(mask.width - 6, mask.height - 6)], [0, 0, 255]);
  const after = await pixels(page, await download(page));
  const changed = (box) => before.data.filter((level, byte) => box((byte >> 2) % before.width, (byte >> 2) / before.width) && level !== after.data[byte]).length;
  assert.equal(changed((x, y) => x < before.width / 2 - 1 || y < before.height / 2 - 1), 0, "what is not masked");
  assert.ok(changed((x, y) => x > before.width / 2 + 1 && y > before.height / 2 + 1) > 100, "what is masked");

  // The mask and the picture come back, too.
  const file = await download(page);
  await dropFile(page, file, "inpainted.png", "image/png", '#drop [data-kind="restore"]');
  await page.waitForFunction(() => document.querySelector("#layers .layer .phrase")?.value === "Drawn anew");
  const again = await drawn(page);
  assert.deepEqual(again.edit, edit);
});

await step("image to image begins with a picture that is dropped", async ({ page }) => {
  await drawUpTo(page, "base");
  await page.fill("#prompt", "a cat");
  await dropFile(page, png, "apple.png", "image/png", '#start [data-kind="start"]');
  await page.waitForSelector("#start .thumb");
  await page.locator("#start input[type=range]").fill("0.5");
  const planned = await page.waitForResponse((response) => response.url().endsWith("/api/v1/plan") && response.ok());
  assert.equal((await planned.json()).stages[0].steps.length, 4);
  const { edit } = await drawn(page);
  assert.equal(edit.strength, 0.5);
  assert.equal(edit.mask, undefined);
});

await step("a style picture and a mask are dropped", async ({ page }) => {
  await drawUpTo(page, "base");
  await page.fill("#prompt", "a cat");
  await dropFile(page, png, "style.png", "image/png", '#style [data-kind="style"]');
  await page.waitForSelector("#style .thumb");
  await pickWords(page, "cat");
  const grey = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(64, 64);
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, 32, 64);
    return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())];
  });
  await dropFile(page, Buffer.from(grey), "mask.png", "image/png", '#drop [data-kind="mask"]');
  await page.waitForFunction(() => document.querySelector("#layers .share").textContent === "50 %");
  const { style, canvas } = await drawn(page);
  assert.equal(style.references.length, 1);
  assert.match(canvas.regions[0].mask, /^255\*\d+ /);
});

await step("words that are not in the prompt are named at their layer", async ({ page }) => {
  await paintTwo(page);
  const undo = page.locator("#undo");
  await page.locator("#layers .layer .phrase").last().fill("dragon");
  await page.waitForSelector("#layers .current .problems:not([hidden])");
  assert.match(await text(page, "#layers .current .problems"), /phrase `dragon` is not in the prompt.*words are: a, red, apple/);
  // The other layer is bound all the same.
  await page.locator("#layers .swatch").first().click();
  assert.match(await text(page, "#layers .current .tokens"), /red/);
  await page.click("#draw");
  await page.waitForSelector("#draw-problems:not([hidden])");
  assert.match(await text(page, "#draw-problems"), /dragon/);
  assert.equal(await text(page, "#draw"), "Draw");
  await undo.click();
  await page.waitForFunction(() => [...document.querySelectorAll("#layers .problems")].every((each) => each.hidden));
  assert.equal(await page.locator("#layers .phrase").last().inputValue(), "cat");
});

await step("undo and redo", async ({ page }) => {
  await paintTwo(page);
  const share = () => page.locator("#layers .share").last().textContent();
  const painted = await share();
  await page.focus("#sheet");
  await page.keyboard.press("Control+z");
  assert.equal(await share(), "0 %");
  await page.keyboard.press("Control+Shift+Z");
  assert.equal(await share(), painted);
  for (let press = 0; press < 8; press += 1) await page.keyboard.press("Control+z");
  assert.equal(await layers(page), 0);
  assert.ok(await page.locator("#undo").isDisabled());
});

await step("painting with the keyboard alone", async ({ page }) => {
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.keyboard.type("a star");
  for (let key = 0; key < 4; key += 1) await page.keyboard.press("Shift+ArrowLeft");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  // The words are picked, and the canvas has the focus.
  assert.equal(await page.locator("#layers .phrase").inputValue(), "star");
  await page.keyboard.press("Space");
  for (let key = 0; key < 6; key += 1) await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Space");
  assert.notEqual(await text(page, "#layers .share"), "0 %");
  await page.keyboard.press("p");
  for (const key of ["ArrowUp", "ArrowLeft", "ArrowDown"]) {
    await page.keyboard.press("Space");
    for (let press = 0; press < 5; press += 1) await page.keyboard.press(key);
  }
  const before = await text(page, "#layers .share");
  await page.keyboard.press("Enter");
  assert.notEqual(await text(page, "#layers .share"), before);
  await page.keyboard.press("?");
  assert.ok(await page.locator("#help").isVisible());
  await page.keyboard.press("Escape");
  assert.ok(!await page.locator("#help").isVisible());
});

await step("words are tapped, by fingers", async ({ page }) => {
  await page.fill("#prompt", "a cat beside a red apple");
  await page.locator("#sheet").tap();
  await page.locator(".word >> text=red").tap();
  await page.locator(".word >> text=apple").tap();
  assert.equal(await page.locator("#layers .phrase").inputValue(), "red apple");
  await page.click("#add-layer");
  await page.locator(".word >> text=a").nth(2).tap();
  assert.equal(await page.locator("#layers .phrase").last().inputValue(), "a");
  assert.equal(await page.locator("#layers .current select").inputValue(), '{"nth":2}');
}, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });

await step("a token is asked for where the server wants one, and a full queue is told", async ({ page }) => {
  const answer = (status, message, headers = {}) => ({ status, headers, contentType: "application/json", body: JSON.stringify({ error: { code: "", message, problems: [] } }) });
  await page.route("**/api/**", (route) => route.request().headers().authorization === "Bearer right" ? route.continue() : route.fulfill(answer(401, "the token is wrong")));
  await page.fill("#prompt", "a cat");
  await page.click("#draw");
  await page.fill("#token", "left");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("token-problem").textContent === "the token is wrong");
  await page.route("**/api/v1/jobs", (route) => route.fulfill(answer(429, "the queue is full", { "Retry-After": "7" })));
  await page.fill("#token", "right");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#draw-problems:not([hidden])");
  assert.equal(await text(page, "#draw-problems"), "the queue is full. Try again in 7 s.");
  assert.ok(await page.locator("#token-form").isHidden());
});

await step("a drawing is cancelled", async ({ page }) => {
  await page.fill("#prompt", "a cat");
  await page.click("#draw");
  await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("Stage"));
  const begun = performance.now();
  await page.click("#draw");
  await page.waitForFunction(() => document.getElementById("status").textContent === "Cancelled.");
  console.log(`    cancelled after ${Math.round(performance.now() - begun)} ms`);
  assert.equal(await text(page, "#draw"), "Draw");
});

// Without motion: a colour on its way to another is no fault.
for (const colorScheme of ["light", "dark"]) {
  await step(`axe finds no serious fault (${colorScheme})`, async ({ page }) => {
    const check = async (where) => assert.deepEqual(await faults(page), [], where);
    await check("empty");
    await drawUpTo(page, "base");
    await paintTwo(page);
    await page.locator("#layers .layer .phrase").last().fill("dragon");
    await page.waitForSelector("#layers .current .problems:not([hidden])");
    await check("painted");
    await page.click("#undo");
    await drawn(page);
    await check("drawn");
    await page.click("#actions >> text=Inpaint");
    await page.waitForSelector("#start .thumb");
    await check("inpainting");
    for (const [button, dialog] of [["#options-button", "#options"], ["#help-button", "#help"], ["#open", "#chooser"]]) {
      await page.click(button);
      await page.waitForTimeout(400);
      await check(dialog);
      await page.keyboard.press("Escape");
    }
    await page.setViewportSize({ width: 360, height: 740 });
    await check("phone");
  }, { colorScheme, reducedMotion: "reduce" });
}

if (folder) await screenshots(browser, url, folder);

await browser.close();
assert.deepEqual(complaints, []);
console.log(`${steps} steps passed, and the browser had nothing to complain of.`);
