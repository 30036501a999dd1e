// The server's native interface. Everything goes through `fetch`, so that a token can be sent with it.

import { parse, stringify } from "./json.js";

const TOKEN = "ediffi-token";

/** What the server refused, in its words. */
export class ApiError extends Error {
  constructor(status, code, message, problems) {
    super(message);
    Object.assign(this, { status, code, problems: problems.length > 0 ? problems : [message] });
  }
}

let askForToken = () => Promise.reject(new Error("no one can be asked for a token"));
let asked = null;

/** Sets who is asked for a token: a function of the server's message that promises one. */
export const onTokenWanted = (ask) => { askForToken = ask; };

async function send(method, path, options, refused = false) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: options.body, signal: options.signal, cache: options.cache });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server cannot be reached.", []);
  }
  if (response.ok) return response;
  const error = await errorOf(response);
  if (response.status !== 401) throw error;
  // Another call may have brought a token in the meantime.
  if (sessionStorage.getItem(TOKEN) === token) {
    asked ??= askForToken(refused || token ? error.message : "").finally(() => { asked = null; });
    sessionStorage.setItem(TOKEN, await asked);
  }
  return send(method, path, options, true);
}

async function errorOf(response) {
  let told = {};
  try {
    told = (await response.json()).error ?? {};
  } catch { /* Something between the page and the server answered. */ }
  const message = told.message ?? `The server answered ${response.status} ${response.statusText}.`;
  const wait = response.headers.get("Retry-After");
  const later = response.status === 429 && wait ? `Try again in ${wait} s.` : "";
  return new ApiError(response.status, told.code ?? "", later ? `${message.replace(/\.$/, "")}. ${later}` : message, told.problems ?? []);
}

const json = async (response) => parse(await response.text());
const post = (path, value, options = {}) =>
  send("POST", path, { ...options, body: stringify(value), headers: { "Content-Type": "application/json" } });

export const capabilities = async () => json(await send("GET", "/api/v1/capabilities", {}));
export const jobs = async () => (await json(await send("GET", "/api/v1/jobs", {}))).jobs;
export const job = async (id) => json(await send("GET", `/api/v1/jobs/${encodeURIComponent(id)}`, {}));
export const submit = async (body) => json(await post("/api/v1/jobs", body));
export const plan = async (body, signal) => json(await post("/api/v1/plan", body, { signal }));
export const bindings = async (body, signal) => json(await post("/api/v1/bindings", body, { signal }));

/** Cancels a job. One that is over stays as it is. */
export const cancel = (id) => send("POST", `/api/v1/jobs/${encodeURIComponent(id)}/cancel`, {});

/** Deletes a job that is over, with its pictures. */
export const remove = (id) => send("DELETE", `/api/v1/jobs/${encodeURIComponent(id)}`, {});

/** The request that a PNG file holds. */
export async function read(file) {
  return json(await send("POST", "/api/v1/read", { body: file, headers: { "Content-Type": "image/png" } }));
}

/** The file of a picture. A plain one has no request inside. */
export async function picture(url, plain = false) {
  return (await send("GET", plain ? `${url}?plain=true` : url, {})).blob();
}

/** Calls `act(name, data)` for each event of a job, until the stream ends. */
export async function events(id, act, signal) {
  const response = await send("GET", `/api/v1/jobs/${encodeURIComponent(id)}/events`, { signal, cache: "no-store" });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const { name, data } = eventOf(block);
      if (data) act(name, parse(data));
    }
  }
}

function eventOf(block) {
  let name = "message";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
    if (field === "event") name = value;
    if (field === "data") data.push(value);
  }
  return { name, data: data.join("\n") };
}
