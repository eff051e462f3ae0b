import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { parseDiff } from "../src/steering/diff.js";

const TEXT = `--- a/login.py
+++ b/login.py
@@ -1,4 +1,5 @@
 def test():
-    old = 1
--- removed dashes
+    new = 1
+++ added pluses
+    more = 2
 end
\\ No newline at end of file
`;

describe("a unified diff", () => {
  test("lines have their kinds and numbers", () => {
    const { lines, added, removed } = parseDiff(TEXT);
    expect(lines.map(({ kind }) => kind)).toEqual([
      "file",
      "file",
      "place",
      "same",
      "removed",
      "removed",
      "added",
      "added",
      "added",
      "same",
      "note",
    ]);
    expect([added, removed]).toEqual([3, 2]);
    expect(parseDiff(TEXT).whole).toBe(true);
    expect(lines[3]).toEqual({ kind: "same", text: "def test():", oldLine: 1, newLine: 1 });
    expect(lines[5]).toEqual({ kind: "removed", text: "-- removed dashes", oldLine: 3 });
    expect(lines[9]).toEqual({ kind: "same", text: "end", oldLine: 4, newLine: 5 });
  });

  test("without a place the signs alone count", () => {
    expect(parseDiff("-a\n+b\n").lines).toEqual([
      { kind: "removed", text: "a" },
      { kind: "added", text: "b" },
    ]);
  });

  test("where something was left out the changes behind it are still changes, without numbers", () => {
    const { lines } = parseDiff(
      "@@ -1,9 +1,9 @@\n-a\n… [4,000 characters left out] …\n+z\n same\n@@ -50,1 +50,1 @@\n-b\n+c",
    );
    expect(lines.map(({ kind, newLine }) => [kind, newLine])).toEqual([
      ["place", undefined],
      ["removed", undefined],
      ["note", undefined],
      ["added", undefined],
      ["same", undefined],
      ["place", undefined],
      ["removed", undefined],
      ["added", 50],
    ]);
  });

  test("several files", () => {
    const two = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n-c\n+d";
    expect(parseDiff(two).lines.filter(({ kind }) => kind === "file")).toHaveLength(4);
  });

  test("a diff of which a part was left out is not whole", () => {
    const cut = "--- a/x\n+++ b/x\n@@ -1,2 +1,9 @@\n-a\n+b\n… [1,234 characters left out] …\n+z\n";
    expect(parseDiff(cut).whole).toBe(false);
    expect(parseDiff("+a\n… [12 characters left out] …\n+b\n").whole).toBe(false);
    expect(parseDiff("@@ -1,2 +1,3 @@\n a\n+b\n").whole).toBe(false);
    expect(parseDiff("@@ -1,2 +1,3 @@\n a\n+b\n\n").whole).toBe(true);
    expect(parseDiff("-a\n+b\n").whole).toBe(true);
  });

  test("whatever the text is, every line of it is there, in its order", () => {
    const SIGNS: Readonly<Record<string, string>> = { added: "+", removed: "-", same: " " };
    const start = fc.constantFrom(
      "+",
      "-",
      " ",
      "@@ -1,2 +1,2 @@",
      "--- a",
      "+++ b",
      "\\ No",
      "x",
      "",
      "diff --git",
      "++ +",
      "@@",
    );
    const line = fc.tuple(start, fc.constantFrom("", "t")).map((parts) => parts.join(""));
    fc.assert(
      fc.property(fc.array(line, { maxLength: 20 }), (lines) => {
        const again = parseDiff(lines.map((each) => `${each}\n`).join("")).lines;
        expect(again.map(({ kind, text }) => (SIGNS[kind] ?? "") + text)).toEqual(lines);
      }),
    );
  });
});
