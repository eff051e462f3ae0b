/** A growing markdown text as a list of blocks, of which only the last is read again when more text comes. */

import { Lexer, type Token } from "marked";

/** Beyond this, in UTF-16 units, a text is shown as plain text: reading it as markdown would hold up the page. */
export const MAX_MARKDOWN = 100_000;

/** One block longer than this is plain text too: the inline grammar is quadratic for some texts. */
export const MAX_BLOCK = 8_000;

export interface Blocks {
  readonly text: string;
  readonly tokens: readonly Token[];
  /** Where each token begins in `text`; -1 where that cannot be told. */
  readonly starts: readonly number[];
  readonly final: boolean;
}

export const NO_BLOCKS: Blocks = { text: "", tokens: [], starts: [], final: false };

const paragraph = (raw: string): Token => ({ type: "plain", raw, text: raw });

/** The blocks of `text`. Totally: whatever the reader of markdown cannot do becomes a block of plain text. */
const lex = (text: string): Token[] => {
  const lexer = new Lexer({ gfm: true, async: false });
  try {
    const tokens = lexer.blockTokens(text, lexer.tokens);
    // A block's inline text waits in a queue: only what is short enough is read.
    for (const { src, tokens: into } of lexer.inlineQueue) {
      if (src.length > MAX_BLOCK) into.push({ type: "text", raw: src, text: src });
      else lexer.inlineTokens(src, into);
    }
    lexer.inlineQueue = [];
    return tokens;
  } catch {
    return [paragraph(text)];
  }
};

/** Where each of `tokens` begins in `text`; -1 behind one whose `raw` is not its text (a list's end is trimmed). */
const startsOf = (tokens: readonly Token[], text: string, from: number): number[] => {
  const starts: number[] = [];
  let at = from;
  for (const { raw } of tokens) {
    starts.push(at);
    at = at >= 0 && text.startsWith(raw, at) ? at + raw.length : -1;
  }
  return starts;
};

/**
 * The blocks of `text`, given those of its beginning: a block that was closed keeps its identity. With `final` the
 * whole is read once more, because a link may be defined behind its use.
 */
export const nextBlocks = (before: Blocks, text: string, final: boolean): Blocks => {
  // Line ends are made one kind first, so that `raw` adds up to the text.
  const clean = text.replace(/\r\n|\r/g, "\n");
  if (clean === before.text && final === before.final) return before;
  let keep = 0;
  if (clean.startsWith(before.text) && !before.final) {
    keep = before.tokens.length;
    while (keep > 0 && before.tokens[keep - 1]!.type === "space") keep--;
    keep = Math.max(0, keep - 1);
    while (keep > 0 && before.starts[keep]! < 0) keep--;
  }
  if (final && /^ {0,3}\[[^\]]+\]:/m.test(clean)) keep = 0;
  const from = keep === 0 ? 0 : before.starts[keep]!;
  const kept = before.tokens.slice(0, keep);
  const fresh = lex(clean.slice(from)).map((token, index) => {
    const old = before.tokens[keep + index];
    return old !== undefined && old.raw === token.raw && keep > 0 ? old : token;
  });
  return {
    text: clean,
    tokens: [...kept, ...fresh],
    starts: [...before.starts.slice(0, keep), ...startsOf(fresh, clean, from)],
    final,
  };
};
