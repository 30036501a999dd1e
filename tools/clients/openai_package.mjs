// The official package `openai` of npm against `ediffi serve`.

import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const url = process.env.EDIFFI_URL;
const guardedUrl = process.env.EDIFFI_GUARDED_URL;

// The base stage alone, which is quick.
const settings = (steps = 3) => ({ seed: 7, last_stage: "base", stages: { base: { steps } } });
const bytes = (b64) => Buffer.from(b64, "base64");
const isPng = (file) => file.subarray(1, 4).toString() === "PNG";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });

const models = (await client.models.list()).data;
assert.equal((await client.models.retrieve(models[0].id)).id, models[0].id);

const answer = await client.images.generate({
  model: models[0].id, prompt: "a red apple", n: 2, size: "auto", moderation: "low", ediffi: settings(),
});
assert.equal(answer.data.length, 2);
assert.ok(answer.data.every((data) => isPng(bytes(data.b64_json))));
assert.ok(answer.usage.total_tokens > 0 && answer.size === "64x64");

const stream = await client.images.generate({
  prompt: "a red apple", stream: true, partial_images: 3, output_format: "webp", ediffi: settings(8),
});
const types = [];
for await (const event of stream) {
  types.push(event.type);
  assert.equal(bytes(event.b64_json).subarray(8, 12).toString(), "WEBP");
}
const partial = "image_generation.partial_image";
assert.deepEqual(types, [partial, partial, partial, "image_generation.completed"]);

const picture = await toFile(bytes(answer.data[0].b64_json), "picture.png", { type: "image/png" });
const form = { ediffi: JSON.stringify(settings()) };
const edited = await client.images.edit({ image: picture, prompt: "a green apple", ...form });
assert.ok(isPng(bytes(edited.data[0].b64_json)));
const styled = await client.images.edit({ image: [picture, picture, picture], prompt: "a green apple", ...form });
assert.ok(isPng(bytes(styled.data[0].b64_json)));

// Errors are the package's own classes, and name the field.
const refused = async (kind, call) => {
  const error = await call().then(() => assert.fail(`no ${kind.name}`), (error) => error);
  assert.ok(error instanceof kind, String(error));
  return error;
};
let error = await refused(OpenAI.BadRequestError, () => client.images.generate({ prompt: "a cat", size: "1000x999" }));
assert.deepEqual([error.status, error.param, error.type], [400, "size", "invalid_request_error"]);
error = await refused(OpenAI.BadRequestError, () => client.images.generate({ prompt: "a cat", style: "vivid" }));
assert.deepEqual([error.param, error.code], ["style", "unsupported_parameter"]);
error = await refused(OpenAI.NotFoundError, () => client.images.generate({ prompt: "a cat", model: "dall-e-3" }));
assert.equal(error.code, "model_not_found");
const wrong = new OpenAI({ baseURL: `${guardedUrl}/v1`, apiKey: "wrong", maxRetries: 0 });
await refused(OpenAI.AuthenticationError, () => wrong.models.list());

// A full queue: one is drawn, one waits.
const guarded = new OpenAI({ baseURL: `${guardedUrl}/v1`, apiKey: "other", maxRetries: 0 });
const forever = () => guarded.images.generate({ prompt: "a cat", stream: true, ediffi: settings(1000) });
const jobs = async () => {
  const answer = await fetch(`${guardedUrl}/api/v1/jobs`, { headers: { authorization: "Bearer other" } });
  return (await answer.json()).jobs;
};
const until = async (...expected) => {
  const end = Date.now() + 30_000;
  for (;;) {
    const states = (await jobs()).map((job) => job.state);
    if (expected.every((state, index) => states[index] === state)) return;
    assert.ok(Date.now() < end, states.join());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};
const first = await forever();
await until("running");
const second = await forever();
await until("queued", "running");
error = await refused(OpenAI.RateLimitError, () => guarded.images.generate({ prompt: "a cat" }));
assert.equal(error.code, "rate_limit_exceeded");
second.controller.abort();
await until("cancelled", "running");
// An error in mid-stream.
const { id } = (await jobs())[1];
await fetch(`${guardedUrl}/api/v1/jobs/${id}/cancel`, { method: "POST", headers: { authorization: "Bearer other" } });
error = await refused(OpenAI.APIError, async () => {
  for await (const event of first) assert.fail(event.type);
});
assert.match(String(error), /cancelled/);
