/** Character references in markdown's text. The common names and all numbers; an unknown name stays as it was written. */

const NAMED = new Map([
  ["amp", "&"], ["lt", "<"], ["gt", ">"], ["quot", '"'], ["apos", "'"], ["nbsp", "\u00a0"], ["copy", "\u00a9"],
  ["reg", "\u00ae"], ["trade", "\u2122"], ["hellip", "\u2026"], ["mdash", "\u2014"], ["ndash", "\u2013"],
  ["lsquo", "\u2018"], ["rsquo", "\u2019"], ["ldquo", "\u201c"], ["rdquo", "\u201d"], ["laquo", "\u00ab"],
  ["raquo", "\u00bb"], ["bull", "\u2022"], ["middot", "\u00b7"], ["times", "\u00d7"], ["divide", "\u00f7"],
  ["deg", "\u00b0"], ["plusmn", "\u00b1"], ["euro", "\u20ac"], ["pound", "\u00a3"], ["larr", "\u2190"],
  ["rarr", "\u2192"], ["uarr", "\u2191"], ["darr", "\u2193"], ["le", "\u2264"], ["ge", "\u2265"], ["ne", "\u2260"],
]);

const point = (code: number): string =>
  code === 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? "\ufffd" : String.fromCodePoint(code);

/** `text` with its character references replaced by what they stand for. */
export const decoded = (text: string): string =>
  text.replace(/&(?:#x([0-9a-f]{1,6})|#([0-9]{1,7})|([a-z]{2,8}));/gi, (whole, hex, decimal, name) => {
    if (hex !== undefined) return point(Number.parseInt(hex, 16));
    if (decimal !== undefined) return point(Number.parseInt(decimal, 10));
    return NAMED.get(name) ?? whole;
  });
