/** The extension: commands, the panel, the status bar, and the dialogs. */

import * as vscode from "vscode";
import { answerQuestion, Dialogs } from "./approvals.js";
import { Desk } from "./desk.js";
import { type FromPanel, Panel, statusOf } from "./panel.js";
import { safeLine } from "./safe.js";

export function activate(context: vscode.ExtensionContext): void {
  const desk = new Desk(context);
  const dialogs = new Dialogs(() => desk.client?.approvals ?? []);
  const panel = new Panel(desk, context.extensionUri, (message) => void guarded(() => fromPanel(message)));
  const bar = vscode.window.createStatusBarItem(vscode.StatusBarAlignment.Left);
  const asked = new Set<string>();
  const returned = new Set<string>();

  const say = async (text: string) => {
    if (desk.run && !desk.run.ended) await desk.run.correct(text);
    else await desk.start(text);
  };
  const stop = async () => {
    if (desk.run && !desk.run.ended) await desk.run.cancel();
    else await vscode.window.showInformationMessage("No run goes on.");
  };
  const fromPanel = async (message: FromPanel) => {
    if (message.type === "say") {
      await say(message.text).catch((error: unknown) => {
        panel.draw({ returned: message.text });
        throw error;
      });
    }
    if (message.type === "revoke") await desk.run?.revoke(message.id);
    if (message.type === "stop") await stop();
    if (message.type === "decide") await dialogs.again();
  };
  const commands: Record<string, () => Promise<void>> = {
    start: async () => {
      const text = await vscode.window.showInputBox({ title: "Start a run", prompt: "What is to be done?" });
      if (!text?.trim()) return;
      panel.show();
      await desk.start(text);
    },
    correct: async () => {
      if (!desk.run || desk.run.ended) {
        await vscode.window.showInformationMessage("No run goes on.");
        return;
      }
      const text = await vscode.window.showInputBox({ title: "Correct the agent", prompt: "It hears this at its next step." });
      if (text?.trim()) await desk.run.correct(text);
    },
    stop,
    show: async () => {
      panel.show();
      await desk.resume();
    },
    decide: () => dialogs.again(),
    setToken: async () => {
      const token = await vscode.window.showInputBox({ title: "The server's token", password: true, ignoreFocusOut: true });
      if (token !== undefined) await desk.setToken(token.trim());
    },
  };

  const draw = () => {
    const waits = desk.client?.approvals.length ?? 0;
    bar.text = waits > 0 ? `$(bell) Midstream: ${waits} waiting` : `${icon()} Midstream`;
    bar.tooltip = statusOf(desk);
    bar.command = waits > 0 ? "midstream.decide" : needsToken() ? "midstream.setToken" : "midstream.show";
    panel.draw();
    void guarded(() => dialogs.look());
    for (const question of desk.run?.questions ?? []) {
      if (asked.has(question.id)) continue;
      asked.add(question.id);
      void guarded(() => answerQuestion(question));
    }
    for (const { correction_id: id, state, text } of desk.run?.view.corrections ?? []) {
      if (state !== "returned" || returned.has(id)) continue;
      returned.add(id);
      panel.draw({ returned: text });
      void vscode.window.showInformationMessage(`This correction came too late: ${safeLine(text)}`);
    }
  };
  const icon = () => {
    const status = desk.client?.connection.status;
    return status === "ready" ? "$(plug)" : status === "closed" ? "$(error)" : status ? "$(sync~spin)" : "$(circle-outline)";
  };
  const needsToken = () => {
    const error = desk.client?.connection.error;
    return error !== undefined && "code" in error && error.code === "unauthorized";
  };

  context.subscriptions.push(
    desk,
    dialogs,
    panel,
    bar,
    desk.onDidChange(draw),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration("midstream.url")) desk.renew();
    }),
    ...Object.entries(commands).map(([name, run]) => vscode.commands.registerCommand(`midstream.${name}`, () => guarded(run))),
  );
  draw();
  bar.show();
  void guarded(() => desk.resume());
}

/** What a person asked for and did not get is told to them; nothing else is to be done about it here. */
async function guarded(act: () => Promise<unknown>): Promise<void> {
  try {
    await act();
  } catch (error) {
    void vscode.window.showErrorMessage(safeLine(error instanceof Error ? error.message : String(error)));
  }
}
