/**
 * Text of models, tools and strangers, made fit to be shown: what is invisible or turns the line around is replaced by
 * something that can be seen, and nothing is longer than a screen can bear.
 */

/** Longest one-line text, in UTF-16 units: what fits two lines of a phone. */
export const MAX_INLINE = 200;

/** How much of a text is looked at at all to make one line of it. */
const INLINE_LOOK = 4 * MAX_INLINE;

/** CSI and OSC sequences, and the two-character escapes. Bounded, so that a hostile text cannot make it slow. */
const ANSI = /(?:\u001b\[|\u009b)[0-?]{0,64}[ -/]{0,8}[@-~]|\u001b\][^\u0007\u001b]{0,2048}(?:\u0007|\u001b\\)|\u001b[@-Z\\-_]/g;

/**
 * Controls (but tab and newline), bidirectional controls, line and paragraph separators, characters without width, the
 * letters that are blank (fillers of Hangul, Khmer and Braille), and the tag characters. The joiners U+200C and U+200D stay: scripts and emoji need them.
 */
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/** In prose: the marks for writing from right to left are needed there, the overrides and embeddings never. */
const UNSEEN_IN_PROSE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2060-\u206f\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/** Marks over and under one letter, from the ninth on: no script needs so many, and they would cover the lines around. */
const HEAPED = /(\p{M}{8})(\p{M}+)/gu;

const counted = (_: string, kept: string, heap: string): string => `${kept}[+${[...heap].length} marks]`;

const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** In words that every font has. */
const asSeen = (char: string): string => `[U+${char.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}]`;

/** `text` without terminal escape sequences. */
export const withoutAnsi = (text: string): string => text.replace(ANSI, "");

/** `text` with everything unseen made visible; newlines and tabs stay. */
export const visible = (text: string): string =>
  text.replace(/\r\n/g, "\n").replace(LONE_SURROGATE, "\ufffd").replace(UNSEEN, asSeen).replace(HEAPED, counted);

/** As `visible`, for running prose in any script. */
export const visibleProse = (text: string): string =>
  text.replace(/\r\n/g, "\n").replace(LONE_SURROGATE, "\ufffd").replace(UNSEEN_IN_PROSE, asSeen).replace(HEAPED, counted);

/** Cut to `max` UTF-16 units, never in the middle of a character. */
export const cut = (text: string, max: number): string => {
  if (text.length <= max) return text;
  const code = text.charCodeAt(max - 1);
  return text.slice(0, code >= 0xd800 && code <= 0xdbff ? max - 1 : max);
};

/**
 * One line of text for labels, titles and names: terminal sequences gone, newlines as `↵`, unseen characters visible,
 * at most `max` characters with an ellipsis.
 */
export const safeInline = (text: unknown, max = MAX_INLINE): string => {
  const all = typeof text === "string" ? text : String(text ?? "");
  const looked = cut(all, Math.max(INLINE_LOOK, max));
  const line = visible(withoutAnsi(looked)).replace(/\n/g, "\u21b5").replace(/\t/g, " ");
  return line.length > max || looked.length < all.length ? `${cut(line, max - 1)}\u2026` : line;
};

/** A JSON value as text, indented. Never throws; what JSON cannot say becomes its string form. */
export const asJson = (value: unknown): string => {
  try {
    return JSON.stringify(value, null, 2) ?? String(value);
  } catch {
    return String(value);
  }
};

/** The address of a link that may be followed: http, https or mailto. Anything else is undefined. */
export const safeHref = (href: string): string | undefined => {
  if (!/^(?:https?:\/\/|mailto:)/i.test(href.trim()) || href.length > 2048) return undefined;
  try {
    return new URL(href.trim()).href;
  } catch {
    return undefined;
  }
};
