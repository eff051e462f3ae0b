/** Approvals as the editor's own dialogs, one after the other; edits in its own view of differences. */

import type { Approval, Question } from "@midstream/client";
import { Refused } from "@midstream/client";
import * as vscode from "vscode";
import { type Edit, proposalOf } from "./edits.js";
import { bounded, safeLine } from "./safe.js";

const APPROVE = "Approve";
const DENY = "Deny";
const LOOK = "Look closer";
const SCHEME = "midstream-proposed";
/** Of the preview in a dialog: it cannot scroll. */
const MAX_DETAIL_CHARS = 600;

/** Asks about each approval once by itself; `again` for those that were put off. */
export class Dialogs implements vscode.Disposable {
  readonly #open: () => readonly Approval[];
  readonly #asked = new Set<string>();
  readonly #proposed = new Map<string, string>();
  readonly #provider: vscode.Disposable;
  #asking = false;

  constructor(open: () => readonly Approval[]) {
    this.#open = open;
    this.#provider = vscode.workspace.registerTextDocumentContentProvider(SCHEME, {
      provideTextDocumentContent: (uri) => this.#proposed.get(uri.query) ?? "",
    });
  }

  dispose(): void {
    this.#provider.dispose();
  }

  again(): Promise<void> {
    this.#asked.clear();
    return this.look();
  }

  /** After any change of what is open. */
  async look(): Promise<void> {
    // Two modal dialogs would hide each other.
    if (this.#asking) return;
    this.#asking = true;
    try {
      for (;;) {
        const next = this.#open().find(({ id }) => !this.#asked.has(id));
        if (!next) return;
        this.#asked.add(next.id);
        await this.#ask(next);
      }
    } finally {
      this.#asking = false;
    }
  }

  async #ask(approval: Approval): Promise<void> {
    const title = safeLine(approval.label || approval.tool);
    const difference = await this.#difference(approval);
    const detail = `Risk: ${approval.risk}. ${difference.said}`;
    // The first is what the return key does: it must be harmless, for whoever is typing when the dialog comes up.
    let choice = await vscode.window.showWarningMessage(title, { modal: true, detail }, LOOK, APPROVE, DENY);
    if (choice === LOOK) {
      await difference.show();
      choice = await vscode.window.showWarningMessage(title, APPROVE, DENY);
    }
    this.#proposed.delete(approval.id);
    if (choice === APPROVE) await answered(() => approval.approve());
    if (choice === DENY) {
      const reason = await vscode.window.showInputBox({ title, prompt: "Why not? The agent reads it. May stay empty." });
      await answered(() => approval.deny(reason || undefined));
    }
  }

  async #difference(approval: Approval): Promise<{ said: string; show: () => Promise<void> }> {
    const name = safeLine(approval.label || approval.tool);
    if (approval.tool === "apply_edit") {
      try {
        const { document, uri, after } = await proposalOf(approval.args as unknown as Edit);
        this.#proposed.set(approval.id, after);
        const right = vscode.Uri.from({ scheme: SCHEME, path: uri.path, query: approval.id });
        const left = document ? uri : vscode.Uri.from({ scheme: SCHEME, path: uri.path, query: "nothing" });
        const show = async () => {
          await vscode.commands.executeCommand("vscode.diff", left, right, `${name} (proposed)`, { preview: true });
        };
        await show();
        return { said: "The difference is shown in the editor.", show };
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        return { said: `It cannot be done as it is: ${safeLine(why)}`, show: () => showText(approval) };
      }
    }
    return { said: bounded(textOf(approval), MAX_DETAIL_CHARS), show: () => showText(approval) };
  }
}

/** A question of the agent: one of its choices, or a line of text. Undefined: put off. */
export async function answerQuestion(question: Question): Promise<void> {
  const title = safeLine(question.question);
  const answer = question.choices
    ? await vscode.window.showQuickPick([...question.choices], { title, ignoreFocusOut: true })
    : await vscode.window.showInputBox({ title, ignoreFocusOut: true });
  if (answer !== undefined) await answered(() => question.answer(question.schema ? parsed(answer) : answer));
}

function parsed(answer: string): unknown {
  try {
    return JSON.parse(answer);
  } catch {
    return answer;
  }
}

function textOf(approval: Approval): string {
  const { preview, args } = approval;
  const data = preview ? preview.data : args;
  return typeof data === "string" ? data : JSON.stringify(data, null, 2);
}

async function showText(approval: Approval): Promise<void> {
  const language = approval.preview?.kind === "diff" ? "diff" : "plaintext";
  const document = await vscode.workspace.openTextDocument({ content: bounded(textOf(approval)), language });
  await vscode.window.showTextDocument(document, { preview: true });
}

async function answered(answer: () => Promise<unknown>): Promise<void> {
  try {
    await answer();
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== "already_resolved") throw error;
    const { decision, by } = error.resolution ?? {};
    void vscode.window.showInformationMessage(safeLine(`Answered already: ${String(decision)} by ${String(by)}.`));
  }
}
