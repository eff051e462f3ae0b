/** A real server with the example's agent and script, as a process of its own. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PYTHON = process.env["MIDSTREAM_PYTHON"] ?? `${ROOT}.venv/bin/python`;
const PATIENCE_MS = 30_000;

export class Server {
  readonly port: number;
  readonly #folder: string;
  readonly #token: string | undefined;
  #process: ChildProcess | undefined;

  private constructor(port: number, folder: string, token: string | undefined) {
    this.port = port;
    this.#folder = folder;
    this.#token = token;
  }

  static async up(folder: string, { token }: { token?: string } = {}): Promise<Server> {
    const probe = createServer().listen(0, "127.0.0.1");
    await once(probe, "listening");
    const { port } = probe.address() as { port: number };
    probe.close();
    await once(probe, "close");
    const server = new Server(port, folder, token);
    await server.up();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async up(): Promise<void> {
    const arguments_ = ["-m", "midstream.cli", "serve", "examples.vscode.agent:app", "--port", String(this.port)];
    const model = `scripted:${ROOT}examples/vscode/script.yaml`;
    arguments_.push("--model", model, "--store", `sqlite:///${this.#folder}/runs.db`);
    if (this.#token) arguments_.push("--token", this.#token);
    let log = "";
    const child = spawn(PYTHON, arguments_, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (text) => (log += text));
    this.#process = child;
    const began = Date.now();
    for (;;) {
      if (child.exitCode !== null || Date.now() - began > PATIENCE_MS) throw new Error(`no server: ${log}`);
      const up = await fetch(`${this.url}/healthz`).then(
        ({ ok }) => ok,
        () => false,
      );
      if (up) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async kill(): Promise<void> {
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}
