// JSON whose seeds are strings of digits. A seed has 64 bits, more than a number of JavaScript holds.
//
// A quote inside a JSON string is written `\"`, so `"seed":` can only be a key.

/** Reads JSON; every `seed` is a string of digits. */
export const parse = (text) => JSON.parse(text.replace(/"seed"\s*:\s*(\d+)/g, '"seed":"$1"'));

/** Writes JSON; every `seed` that is a string of digits becomes a number. */
export const stringify = (value) => JSON.stringify(value).replace(/"seed":"(\d+)"/g, '"seed":$1');
