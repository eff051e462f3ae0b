/** What an agent can reach, and what becomes of an edit when the file is another one than it thinks. */

import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as vscode from "vscode";
import { afterEach, beforeEach, expect, test } from "vitest";
import { editorTools, MAX_READ_CHARS } from "../src/edits.js";
import { reset, type TextDocument } from "./fake/vscode.js";

const { apply_edit: applyEdit, read_file: readFile_, list_files: listFiles } = editorTools;

let place: string;
let folder: string;

beforeEach(async () => {
  place = await mkdtemp(join(tmpdir(), "midstream-edits-"));
  folder = join(place, "workspace");
  await mkdir(folder);
  await writeFile(join(place, "outside.txt"), "secret");
  await writeFile(join(folder, "note.txt"), "one\ntwo\ntwo\n");
  reset(folder);
});

afterEach(() => rm(place, { recursive: true }));

const refusal = (work: Promise<unknown>) => work.then(() => "none", ({ code }: { code: string }) => code);
const note = () => readFile(join(folder, "note.txt"), "utf8");

test.each([
  "../outside.txt",
  "a/../../outside.txt",
  "/etc/passwd",
  "..\\outside.txt",
  "C:\\windows\\system.ini",
  "..",
  "note.txt\0.md",
])("%j is not in the workspace", async (path) => {
  expect(await refusal(applyEdit({ path, old: "", new: "x" }))).toBe("outside_workspace");
  expect(await refusal(applyEdit({ path, old: "secret", new: "x" }))).toBe("outside_workspace");
  expect(await refusal(readFile_({ path }))).toBe("outside_workspace");
  expect(await readFile(join(place, "outside.txt"), "utf8")).toBe("secret");
});

test("a symbolic link leads nowhere else, neither to what is there nor to what would be made", async () => {
  await symlink(place, join(folder, "up"));
  await symlink(join(place, "outside.txt"), join(folder, "link.txt"));
  await symlink(join(place, "made.txt"), join(folder, "dangling.txt"));
  for (const path of ["up/outside.txt", "link.txt", "dangling.txt", "up/new.txt"]) {
    expect(await refusal(applyEdit({ path, old: "", new: "x" }))).toBe("outside_workspace");
    expect(await refusal(readFile_({ path }))).toBe("outside_workspace");
  }
  await expect(readFile(join(place, "made.txt"))).rejects.toThrow();
});

test("an edit replaces what occurs once", async () => {
  expect(await applyEdit({ path: "note.txt", old: "one\n", new: "ONE\n" })).toEqual({ made: false });
  expect(await note()).toBe("ONE\ntwo\ntwo\n");
});

test.each([
  ["three", "stale"],
  ["two", "ambiguous"],
  ["", "exists"],
])("what does not fit the file is refused: %j", async (old, code) => {
  expect(await refusal(applyEdit({ path: "note.txt", old, new: "x" }))).toBe(code);
  expect(await note()).toBe("one\ntwo\ntwo\n");
});

test("what was typed and not saved counts", async () => {
  const document = (await vscode.workspace.openTextDocument(vscode.Uri.file(join(folder, "note.txt")))) as unknown;
  (document as TextDocument).type("another\n");
  expect(await readFile_({ path: "note.txt" })).toBe("another\n");
  expect(await refusal(applyEdit({ path: "note.txt", old: "one", new: "x" }))).toBe("stale");
});

test("a file keeps its line ends", async () => {
  await writeFile(join(folder, "dos.txt"), "one\r\ntwo\r\n");
  await applyEdit({ path: "dos.txt", old: "one\ntwo", new: "1\n2" });
  expect(await readFile(join(folder, "dos.txt"), "utf8")).toBe("1\r\n2\r\n");
});

test("a new file is made with its folders", async () => {
  expect(await applyEdit({ path: "a/b.txt", old: "", new: "new" })).toEqual({ made: true });
  expect(await readFile(join(folder, "a/b.txt"), "utf8")).toBe("new");
  expect(await listFiles()).toEqual(["a/b.txt", "note.txt"]);
  expect(await refusal(applyEdit({ path: "c.txt", old: "x", new: "y" }))).toBe("not_found");
  expect(await refusal(applyEdit({ path: "a", old: "", new: "y" }))).toBe("not_a_file");
});

test("a long file is cut, and without a folder there is nothing", async () => {
  await writeFile(join(folder, "long.txt"), "x".repeat(MAX_READ_CHARS + 1));
  expect((await readFile_({ path: "long.txt" })).length).toBeLessThan(MAX_READ_CHARS + 100);
  reset(undefined);
  expect(await refusal(listFiles())).toBe("no_workspace");
});
