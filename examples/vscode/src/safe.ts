/**
 * Text of models, tools and other people, made harmless: what moves a cursor, hides, or turns the direction of writing is
 * shown instead (https://trojansource.codes), and nothing is longer than a screen can bear. Pure.
 */

/** Of one block of the panel: a browser lays a whole paragraph out at once. */
export const MAX_BLOCK_CHARS = 20_000;
/** Of a line in a dialog. */
export const MAX_LINE_CHARS = 200;
const CUT = "\n[the rest is left out here]";

// C0 but tab and newline · DEL and C1 · separators · embeddings, overrides, isolates · byte order mark · invisible tags.
const UNSAFE =
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

export function safeText(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(UNSAFE, (char) => {
    const code = char.codePointAt(0) ?? 0;
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
  });
}

export function safeLine(text: string, limit = MAX_LINE_CHARS): string {
  const line = safeText(text.slice(0, 4 * limit)).replace(/\s+/g, " ").trim();
  return line.length <= limit && text.length <= 4 * limit ? line : `${line.slice(0, limit - 1)}…`;
}

export function bounded(text: string, limit = MAX_BLOCK_CHARS): string {
  return text.length <= limit ? safeText(text) : safeText(text.slice(0, limit)) + CUT;
}
