/** Where a path that an agent names is, if it is in the workspace. */

import { lstat, realpath } from "node:fs/promises";
import { dirname, posix, sep } from "node:path";
import * as vscode from "vscode";

/** The failure of a call: `code` and `message` are told to the agent. */
export class ToolFailure extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Throws `ToolFailure` for what is outside of the workspace, also by way of a symbolic link. */
export async function placeOf(path: string): Promise<vscode.Uri> {
  const folder = workspaceFolder();
  const plain = posix.normalize(path.replaceAll("\\", "/"));
  const outside = new ToolFailure("outside_workspace", `${path} is not in the workspace: name a path relative to it.`);
  if (plain.startsWith("/") || /^[a-z]:/i.test(plain) || plain.includes("\0")) throw outside;
  if (plain === "." || plain.endsWith("/")) throw new ToolFailure("not_a_file", `${path} is a folder.`);
  if (plain === ".." || plain.startsWith("../")) throw outside;
  const uri = vscode.Uri.joinPath(folder, plain);
  if (folder.scheme === "file" && !(await isInside(uri.fsPath, folder.fsPath))) throw outside;
  return uri;
}

export function workspaceFolder(): vscode.Uri {
  const folder = vscode.workspace.workspaceFolders?.[0];
  if (!folder) throw new ToolFailure("no_workspace", "No folder is open in the editor.");
  return folder.uri;
}

/** Judged by what is there already: of a new file, the nearest folder that exists. */
async function isInside(path: string, folder: string): Promise<boolean> {
  const root = await realpath(folder);
  for (let at = path; ; at = dirname(at)) {
    const real = await ifThere(realpath(at));
    if (real !== undefined) return real === root || real.startsWith(root + sep);
    // A link that leads nowhere yet: what is written through it would be made where it points to.
    if ((await ifThere(lstat(at))) !== undefined) return false;
    if (at === folder || at === dirname(at)) return false;
  }
}

async function ifThere<Found>(found: Promise<Found>): Promise<Found | undefined> {
  try {
    return await found;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
}
