// A browser whose every complaint fails the test.

import { chromium } from "playwright-core";

/** A started browser; `close` it. */
export const start = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** A page at `url` that collects complaints: errors of the console, of scripts, of the policy, and requests to other hosts. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const complaints = [];
  const transferred = new Map();
  page.on("console", (message) => {
    const expected = /status of (400|401|404|429)/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !expected) complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`script: ${error.stack ?? error}`));
  page.on("request", (request) => {
    if (/^https?:/.test(request.url()) && !request.url().startsWith(url)) complaints.push(`another host: ${request.url()}`);
  });
  page.on("response", async (response) => {
    const path = new URL(response.url()).pathname;
    if (path === "/" || path.startsWith("/assets/")) transferred.set(path, (await response.body().catch(() => Buffer.alloc(0))).length);
  });
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
  });
  await page.goto(url);
  // The plan comes last.
  const shown = page.waitForFunction(() => document.querySelectorAll("#plan .step").length > 0);
  await shown.catch((error) => { throw new Error(`the page does not start: ${complaints.join("\n") || error}`); });
  return { page, context, complaints, transferred };
}

/** Drags the mouse over the sheet, through points that are shares of its width and height. */
export async function drag(page, points) {
  const box = await page.locator("#sheet").boundingBox();
  const at = ([x, y]) => [box.x + x * box.width, box.y + y * box.height];
  await page.mouse.move(...at(points[0]));
  await page.mouse.down();
  for (const point of points.slice(1)) await page.mouse.move(...at(point), { steps: 8 });
  await page.mouse.up();
}

/** Selects words of the prompt as a user does with the keyboard, and takes what is offered first. */
export async function pickWords(page, words) {
  await page.locator("#prompt").focus();
  await page.evaluate((text) => {
    const field = document.getElementById("prompt");
    const start = field.value.indexOf(text);
    field.setSelectionRange(start, start + text.length);
  }, words);
  await page.locator("#pick .primary").click();
}

/** Drops a file on one of the fields that appear for it, or on the whole page. */
export async function dropFile(page, bytes, name, type, target) {
  const data = await page.evaluateHandle(([base64, fileName, fileType]) => {
    const transfer = new DataTransfer();
    const content = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    transfer.items.add(new File([content], fileName, { type: fileType }));
    return transfer;
  }, [Buffer.from(bytes).toString("base64"), name, type]);
  await page.dispatchEvent("body", "dragenter", { dataTransfer: data });
  await page.dispatchEvent(target, "dragover", { dataTransfer: data });
  await page.dispatchEvent(target, "drop", { dataTransfer: data });
}
