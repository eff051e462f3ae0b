/** The tools that this editor runs for the agent: it reads what is open and changes it, with the editor's own undo. */

import * as vscode from "vscode";
import { placeOf, ToolFailure, workspaceFolder } from "./place.js";

/** Characters of a file that an agent may be sent: more than a model reads at once. */
export const MAX_READ_CHARS = 100_000;
/** Files that are listed. */
export const MAX_LISTED = 500;

export interface Edit {
  readonly path: string;
  /** Empty: a new file. */
  readonly old: string;
  readonly new: string;
}

export interface Proposal {
  /** Absent: the file is new. */
  readonly document: vscode.TextDocument | undefined;
  readonly uri: vscode.Uri;
  /** What is replaced. */
  readonly range: vscode.Range | undefined;
  readonly text: string;
  /** The whole file as it would be. */
  readonly after: string;
}

export const editorTools = { list_files: listFiles, read_file: readFile, apply_edit: applyEdit };

/** What an edit would do to the file as it is now. Throws `ToolFailure`. */
export async function proposalOf(edit: Edit): Promise<Proposal> {
  const uri = await placeOf(edit.path);
  const document = await opened(uri);
  if (!document) {
    if (edit.old) throw new ToolFailure("not_found", `${edit.path} does not exist. To make it, leave \`old\` empty.`);
    return { document, uri, range: undefined, text: edit.new, after: edit.new };
  }
  if (!edit.old) throw new ToolFailure("exists", `${edit.path} is there already: say in \`old\` what to replace.`);
  const before = document.getText();
  // Models write plain line ends; the file keeps its own.
  const end = document.eol === vscode.EndOfLine.CRLF ? "\r\n" : "\n";
  const [old, text] = [edit.old, edit.new].map((each) => each.replace(/\r?\n/g, end)) as [string, string];
  const at = before.indexOf(old);
  if (at < 0) {
    throw new ToolFailure("stale", `\`old\` does not occur in ${edit.path} as it is now: read it again.`);
  }
  if (before.indexOf(old, at + 1) >= 0) {
    throw new ToolFailure("ambiguous", `\`old\` occurs more than once in ${edit.path}: add what stands around it.`);
  }
  const range = new vscode.Range(document.positionAt(at), document.positionAt(at + old.length));
  return { document, uri, range, text, after: before.slice(0, at) + text + before.slice(at + old.length) };
}

async function applyEdit(edit: Edit): Promise<{ made: boolean }> {
  const { document, uri, range, text } = await proposalOf(edit);
  const change = new vscode.WorkspaceEdit();
  if (range) change.replace(uri, range, text);
  else change.createFile(uri, { overwrite: false, contents: new TextEncoder().encode(text) });
  // The editor takes back nothing that was typed since: a document of another version refuses the edit.
  if (!(await vscode.workspace.applyEdit(change))) {
    throw new ToolFailure("stale", `The editor did not take the edit of ${edit.path}: read it again.`);
  }
  if (document && !(await document.save())) throw new ToolFailure("not_saved", `${edit.path} could not be saved.`);
  return { made: !document };
}

async function readFile({ path }: { path: string }): Promise<string> {
  const document = await opened(await placeOf(path));
  if (!document) throw new ToolFailure("not_found", `${path} does not exist.`);
  const text = document.getText();
  return text.length <= MAX_READ_CHARS ? text : `${text.slice(0, MAX_READ_CHARS)}\n[the rest is left out]`;
}

async function listFiles(): Promise<string[]> {
  const folder = workspaceFolder();
  const pattern = new vscode.RelativePattern(folder, "**/*");
  const found = await vscode.workspace.findFiles(pattern, "**/node_modules/**", MAX_LISTED);
  return found.map((uri) => uri.path.slice(folder.path.length + 1)).sort();
}

/** As the editor has it, with what is not saved yet. Undefined: there is no such file. */
async function opened(uri: vscode.Uri): Promise<vscode.TextDocument | undefined> {
  try {
    const { type } = await vscode.workspace.fs.stat(uri);
    if (type & vscode.FileType.Directory) throw new ToolFailure("not_a_file", `${uri.path} is a folder.`);
  } catch (error) {
    if (error instanceof ToolFailure) throw error;
    return undefined;
  }
  try {
    return await vscode.workspace.openTextDocument(uri);
  } catch (error) {
    throw new ToolFailure("not_text", error instanceof Error ? error.message : String(error));
  }
}
