/** A diff as lines with their signs: what is added or removed is said by the sign, and shown by the colour as well. */

import { useMemo, useState } from "preact/hooks";

import { visible } from "../text/safe.js";
import { cut } from "../text/safe.js";
import { parseDiff } from "./diff.js";
import type { DiffKind } from "./diff.js";

/** Lines shown at first: some screens full. */
const FIRST_LINES = 400;
/** Characters of one line: a line of a minified file is no help to anybody. */
const MAX_LINE = 2000;

const SIGN: Readonly<Record<DiffKind, string>> = { added: "+", removed: "-", same: " ", place: "", file: "", note: "" };
const SPOKEN: Readonly<Record<DiffKind, string>> = {
  added: "added: ",
  removed: "removed: ",
  same: "",
  place: "",
  file: "",
  note: "",
};

export function DiffView({ text, label }: { text: string; label: string }) {
  const diff = useMemo(() => parseDiff(text), [text]);
  const [all, setAll] = useState(false);
  const lines = all ? diff.lines : diff.lines.slice(0, FIRST_LINES);
  return (
    <div class="diff">
      <p class="hint">
        {diff.whole ? "" : "At least "}
        {diff.added} {diff.added === 1 ? "line" : "lines"} added, {diff.removed} removed.
      </p>
      {!diff.whole && <p class="why strong">This is not all of it: lines are missing here that the change has.</p>}
      {/* It scrolls by itself, so it must be reachable with the keyboard. */}
      <div class="diff-lines" role="region" aria-label={label} tabIndex={0}>
        {lines.map((line, index) => (
          <div key={index} class={`diff-line ${line.kind}`}>
            <span class="diff-number" aria-hidden="true">
              {line.newLine ?? line.oldLine ?? ""}
            </span>
            <span class="diff-sign" aria-hidden="true">
              {SIGN[line.kind]}
            </span>
            <span class="diff-text">
              {SPOKEN[line.kind] !== "" && <span class="visually-hidden">{SPOKEN[line.kind]}</span>}
              {visible(cut(line.text, MAX_LINE))}
              {line.text.length > MAX_LINE && (
                <span class="muted"> … {line.text.length - MAX_LINE} more characters</span>
              )}
            </span>
          </div>
        ))}
      </div>
      {lines.length < diff.lines.length && (
        <button type="button" class="small" onClick={() => setAll(true)}>
          Show all {diff.lines.length} lines
        </button>
      )}
    </div>
  );
}
