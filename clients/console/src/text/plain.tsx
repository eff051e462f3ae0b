import { useState } from "preact/hooks";

import { cut, visible, withoutAnsi } from "./safe.js";

/** Characters shown at first, and added by each "show more": a slice of this size lays out in a few milliseconds. */
export const SLICE = 20_000;

/** Lines shown at first. */
const FIRST_LINES = 400;

/** Slices of one text in the page at a time; beyond that it can be copied, which costs no layout. */
const MAX_SLICES = 50;

const firstSlice = (text: string): number => {
  let end = Math.min(text.length, SLICE);
  let at = -1;
  for (let lines = 0; lines < FIRST_LINES; lines++) {
    at = text.indexOf("\n", at + 1);
    if (at === -1 || at >= end) return end;
  }
  end = at;
  return end;
};

export interface PlainTextProps {
  text: string;
  /** Take terminal colours out instead of showing their escape characters: for the output of programs. */
  ansi?: "show" | "strip";
  class?: string;
}

/** Text as it is: line breaks kept, nothing interpreted, the unseen made visible, a huge text shown in parts. */
export function PlainText({ text, ansi = "show", class: className = "" }: PlainTextProps) {
  const [extra, setExtra] = useState(0);
  const first = firstSlice(text);
  const end = extra === 0 ? first : Math.min(text.length, (extra + 1) * SLICE);
  const shown = (part: string): string => visible(ansi === "strip" ? withoutAnsi(part) : part);
  const slices = [];
  for (let from = 0, at = 0; at < end; at = from) {
    const part = cut(text.slice(at, Math.min(end, at + SLICE)), SLICE);
    from = at + part.length;
    // The last unit of a cut pair is taken along, so that the loop always goes on.
    if (part.length === 0) break;
    slices.push(
      <span class="slice" key={at}>
        {shown(part)}
      </span>,
    );
  }
  const rest = text.length - end;
  return (
    <div class={`plain ${className}`} dir="auto">
      <div class="plain-text">{slices}</div>
      {rest > 0 && (
        <p class="plain-more">
          {extra + 1 < MAX_SLICES && (
            <button type="button" onClick={() => setExtra(extra + 1)}>
              Show more
            </button>
          )}
          <CopyButton text={text} label="Copy all" />
          <span class="muted">{rest.toLocaleString("en")} more characters</span>
        </p>
      )}
    </div>
  );
}

/** Puts `text` (or what the function gives when it is pressed) on the clipboard and says so. */
export function CopyButton({ text, label = "Copy" }: { text: string | (() => string); label?: string }) {
  const [said, setSaid] = useState("");
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(typeof text === "string" ? text : text());
      setSaid("Copied");
    } catch {
      setSaid("Not allowed");
    }
    setTimeout(() => setSaid(""), 1500);
  };
  return (
    <button type="button" class="copy" onClick={() => void copy()}>
      {said || label}
    </button>
  );
}
