// Files of pictures: base64, decoding, and what the server takes.

/** The largest file that is sent as it is, and the most pixels of one. */
const LARGEST_FILE = 8 << 20;
const LARGEST_EDIT = 2048;
const LARGEST_STYLE = 448;

/** The base64 of a file. */
export function encodeFile(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(file);
  });
}

/** The file of a base64 text. */
export function fileFromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: bytes[0] === 0xff ? "image/jpeg" : "image/png" });
}

/** The pixels of a file, turned as its EXIF data say. */
export async function decodeFile(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name ?? "The file"} is no picture that this browser reads.`);
  }
}

export async function sizeOf(file) {
  const bitmap = await decodeFile(file);
  const { width, height } = bitmap;
  bitmap.close();
  return { width, height };
}

/** A file as the server takes it: PNG or JPEG, not too large. One that is so already is kept to the byte. */
async function fitting(file, longest, side) {
  const bitmap = await decodeFile(file);
  const measured = side(bitmap.width, bitmap.height);
  const kept = ["image/png", "image/jpeg"].includes(file.type) && file.size <= LARGEST_FILE && measured <= longest;
  if (kept) return file;
  const scale = Math.min(1, longest / measured);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
}

/** The base64 of a picture to begin with. */
export const fileToBase64 = async (file) => encodeFile(await fitting(file, LARGEST_EDIT, Math.max));

/** The base64 of a picture whose style is taken: CLIP looks at no more of it. */
export const styleToBase64 = async (file) => encodeFile(await fitting(file, LARGEST_STYLE, Math.min));

/** A name for a file, from words and a seed. */
export function fileName(prompt, seed) {
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60);
  return `${words || "picture"}-${seed}.png`;
}
