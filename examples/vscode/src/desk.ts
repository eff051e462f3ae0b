/** The connection of this window, and the run it follows. */

import { type Client, connect, Refused, type Run } from "@midstream/client";
import * as vscode from "vscode";
import { editorTools } from "./edits.js";

const TOKEN = "midstream.token";
const RUN = "midstream.run";
const CLIENT = "midstream.client";

export class Desk implements vscode.Disposable {
  run: Run | undefined;
  readonly #context: vscode.ExtensionContext;
  readonly #changed = new vscode.EventEmitter<void>();
  readonly onDidChange = this.#changed.event;
  #client: Client | undefined;
  #unsubscribe: () => void = () => {};

  constructor(context: vscode.ExtensionContext) {
    this.#context = context;
  }

  /** Undefined until something needed a connection. */
  get client(): Client | undefined {
    return this.#client;
  }

  /** A new run; in the thread of the one before. */
  async start(input: string): Promise<void> {
    const agent = vscode.workspace.getConfiguration("midstream").get<string>("agent");
    const threadId = this.run?.view.thread_id;
    const run = await this.#connected().start({
      input,
      ...(agent && { agent }),
      ...(threadId && { threadId }),
    });
    await this.#follow(run);
  }

  /** The run that this window followed before it was loaded again, if it went on then. */
  async resume(): Promise<void> {
    const runId = this.#context.workspaceState.get<string>(RUN);
    if (this.run || !runId) return;
    try {
      await this.#follow(await this.#connected().attach(runId));
    } catch (error) {
      if (error instanceof Refused && error.code === "not_found") await this.#keep(undefined);
      throw error;
    }
  }

  async setToken(token: string): Promise<void> {
    if (token) await this.#context.secrets.store(TOKEN, token);
    else await this.#context.secrets.delete(TOKEN);
    this.renew();
  }

  /** Another address or token: connect anew, and go on with the run. */
  renew(): void {
    this.dispose();
    this.run = undefined;
    void this.resume().catch(() => {});
    this.#changed.fire();
  }

  /** Ends the connection. Runs go on at the server. */
  dispose(): void {
    this.#unsubscribe();
    this.#client?.close();
    this.#client = undefined;
  }

  #connected(): Client {
    // One that was refused for good does not come back by itself.
    if (this.#client?.connection.status === "closed") this.dispose();
    if (this.#client) return this.#client;
    const url = vscode.workspace.getConfiguration("midstream").get<string>("url") ?? "";
    const client = connect({
      url,
      clientId: this.#clientId(),
      getToken: () => Promise.resolve(this.#context.secrets.get(TOKEN)),
      tools: editorTools,
    });
    this.#client = client;
    this.#unsubscribe = client.subscribe(() => this.#changed.fire());
    return client;
  }

  /** The same after a reload: calls that wait for this window then find it. */
  #clientId(): string {
    const kept = this.#context.workspaceState.get<string>(CLIENT);
    if (kept) return kept;
    const made = `vscode_${crypto.randomUUID().replaceAll("-", "")}`;
    void this.#context.workspaceState.update(CLIENT, made);
    return made;
  }

  async #follow(run: Run): Promise<void> {
    this.run?.detach();
    this.run = run;
    run.subscribe(() => this.#changed.fire());
    this.#changed.fire();
    await this.#keep(run.id);
    run.finished.then(
      () => (this.run === run ? this.#keep(undefined) : undefined),
      () => {},
    );
  }

  async #keep(runId: string | undefined): Promise<void> {
    await this.#context.workspaceState.update(RUN, runId);
  }
}
