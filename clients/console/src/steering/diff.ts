/** A unified diff as lines to show. Pure: whatever the text is, every line of it comes out again, in its order. */

export type DiffKind = "added" | "removed" | "same" | "place" | "file" | "note";

export interface DiffLine {
  readonly kind: DiffKind;
  readonly text: string;
  readonly oldLine?: number;
  readonly newLine?: number;
}

export interface Diff {
  readonly lines: readonly DiffLine[];
  readonly added: number;
  readonly removed: number;
  /** False: a place promises lines that are not there. */
  readonly whole: boolean;
}

const PLACE = /^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/;

/** What the server writes where it cuts a preview. */
const LEFT_OUT = /^… \[[\d,]+ characters left out\] …$/;

/** Without a place (`@@`) lines count as changes by their sign alone, as a short hand-written diff has them. */
export function parseDiff(text: string): Diff {
  const lines: DiffLine[] = [];
  let [added, removed] = [0, 0];
  let [oldLine, newLine] = [0, 0];
  // What the place promises is still to come: within it `--- a` is a removed line that begins with two dashes.
  let [oldLeft, newLeft] = [0, 0];
  let placed = false;
  let whole = true;
  const all = text.split("\n");
  if (all.at(-1) === "") all.pop();
  for (const [index, line] of all.entries()) {
    const inside = oldLeft > 0 || newLeft > 0;
    const place = PLACE.exec(line);
    if (place !== null) {
      if (inside) whole = false;
      placed = true;
      [oldLine, newLine] = [Number(place[1]), Number(place[3])];
      [oldLeft, newLeft] = [Number(place[2] ?? 1), Number(place[4] ?? 1)];
      lines.push({ kind: "place", text: line });
    } else if (!inside && isFileLine(line, all[index + 1], all[index - 1])) {
      lines.push({ kind: "file", text: line });
    } else if (line.startsWith("+") && (newLeft > 0 || !placed)) {
      added += 1;
      newLeft -= 1;
      lines.push({ kind: "added", text: line.slice(1), ...(placed ? { newLine: newLine++ } : {}) });
    } else if (line.startsWith("-") && (oldLeft > 0 || !placed)) {
      removed += 1;
      oldLeft -= 1;
      lines.push({ kind: "removed", text: line.slice(1), ...(placed ? { oldLine: oldLine++ } : {}) });
    } else if (line.startsWith(" ") && (inside || !placed)) {
      oldLeft -= 1;
      newLeft -= 1;
      lines.push({
        kind: "same",
        text: line.slice(1),
        ...(placed ? { oldLine: oldLine++, newLine: newLine++ } : {}),
      });
    } else {
      // Not a line of a diff: something was left out here, and the numbers are right no longer.
      if (inside && !line.startsWith("\\")) [placed, oldLeft, newLeft] = [false, 0, 0];
      // An empty line is one of the file whose space was lost on the way.
      if ((inside && !/^\\|^$/.test(line)) || LEFT_OUT.test(line)) whole = false;
      lines.push({ kind: "note", text: line });
    }
  }
  return { lines, added, removed, whole: whole && oldLeft <= 0 && newLeft <= 0 };
}

function isFileLine(line: string, next: string | undefined, before: string | undefined): boolean {
  if (line.startsWith("--- ")) return next?.startsWith("+++ ") === true;
  if (line.startsWith("+++ ")) return before?.startsWith("--- ") === true;
  return /^(diff |index |similarity |rename |new file |deleted file )/.test(line);
}
