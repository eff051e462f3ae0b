/** The panel beside the editor: the run as it goes on. What is in it is drawn by webview/panel.ts. */

import { randomBytes } from "node:crypto";
import * as vscode from "vscode";
import { type Block, blocksOf, type Change, changeOf } from "./blocks.js";
import type { Desk } from "./desk.js";
import { safeLine } from "./safe.js";

/** To the page. */
export interface ToPanel {
  readonly status: string;
  readonly running: boolean;
  readonly waits: number;
  /** Corrections that are not applied yet. */
  readonly corrections: readonly { readonly id: string; readonly text: string }[];
  readonly change?: Change;
  /** What was typed and not taken, to be typed no second time. */
  readonly returned?: string;
}

/** From the page. */
export type FromPanel =
  | { readonly type: "ready" }
  | { readonly type: "say"; readonly text: string }
  | { readonly type: "revoke"; readonly id: string }
  | { readonly type: "stop" | "decide" };

const CONNECTION = { connecting: "Connecting", ready: "Connected", reconnecting: "Coming back", closed: "Not connected" };

export class Panel implements vscode.Disposable {
  readonly #desk: Desk;
  readonly #root: vscode.Uri;
  readonly #on: (message: FromPanel) => void;
  #panel: vscode.WebviewPanel | undefined;
  #drawn: readonly Block[] = [];
  #ready = false;

  constructor(desk: Desk, root: vscode.Uri, on: (message: FromPanel) => void) {
    this.#desk = desk;
    this.#root = root;
    this.#on = on;
  }

  show(): void {
    if (this.#panel) return this.#panel.reveal(undefined, true);
    const panel = vscode.window.createWebviewPanel(
      "midstream.run",
      "Midstream",
      { viewColumn: vscode.ViewColumn.Beside, preserveFocus: true },
      { enableScripts: true, localResourceRoots: ["dist", "media"].map((name) => vscode.Uri.joinPath(this.#root, name)) },
    );
    this.#panel = panel;
    panel.onDidDispose(() => {
      this.#panel = undefined;
      this.#ready = false;
    });
    panel.webview.onDidReceiveMessage((message: FromPanel) => {
      // A page that was hidden begins anew.
      if (message.type === "ready") {
        this.#ready = true;
        this.#drawn = [];
        this.draw({ whole: true });
      } else {
        this.#on(message);
      }
    });
    panel.webview.html = pageOf(panel.webview, this.#root);
  }

  /** After any change. `whole`: the page has nothing yet. */
  draw({ whole = false, returned }: { whole?: boolean; returned?: string } = {}): void {
    if (!this.#panel || !this.#ready) return;
    const { run, client } = this.#desk;
    const blocks = run ? blocksOf(run.view) : [];
    const change = whole ? { keep: 0, blocks } : changeOf(this.#drawn, blocks);
    this.#drawn = blocks;
    const waiting = run?.view.corrections.filter(({ state }) => state === "accepted" || state === "held") ?? [];
    const message: ToPanel = {
      status: statusOf(this.#desk),
      running: run !== undefined && !run.ended,
      waits: client?.approvals.length ?? 0,
      corrections: waiting.map(({ correction_id: id, text }) => ({ id, text: safeLine(text) })),
      ...(change && { change }),
      ...(returned && { returned }),
    };
    void this.#panel.webview.postMessage(message);
  }

  dispose(): void {
    this.#panel?.dispose();
  }
}

/** The connection, and how the run is getting on, in a line. */
export function statusOf({ client, run }: Desk): string {
  if (!client) return "Not connected yet";
  const { status, error } = client.connection;
  const connection = error ? `${CONNECTION.closed}: ${safeLine(error.message)}` : CONNECTION[status];
  return run ? `${connection} · ${safeLine(run.view.status_text ?? run.view.status)}` : connection;
}

function pageOf(webview: vscode.Webview, root: vscode.Uri): string {
  const nonce = randomBytes(16).toString("base64url");
  const script = webview.asWebviewUri(vscode.Uri.joinPath(root, "dist", "panel.js"));
  const style = webview.asWebviewUri(vscode.Uri.joinPath(root, "media", "panel.css"));
  const policy = `default-src 'none'; style-src ${webview.cspSource}; script-src 'nonce-${nonce}'`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<link rel="stylesheet" href="${style}">
<title>Midstream</title>
</head>
<body>
<header>
<p id="status" role="status"></p>
<button id="decide" type="button" hidden></button>
<button id="stop" type="button">Stop</button>
</header>
<main id="run" tabindex="0" aria-label="The run"></main>
<footer>
<ul id="corrections" aria-label="Corrections that wait"></ul>
<form id="say">
<label for="text" id="label">Start a run</label>
<textarea id="text" rows="2"></textarea>
<button type="submit" id="send">Start</button>
</form>
</footer>
<script nonce="${nonce}" src="${script}"></script>
</body>
</html>`;
}
