/** A real server as a process of its own, and the proxy that breaks what passes between it and a client. */

import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type Socket, connect as dial, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { RunEvent, View } from "../../src/protocol.js";
import { PYTHON } from "../python.js";

const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));
const PATIENCE_MS = 30_000;

const words = (count: number): string => Array.from({ length: count }, (_, index) => `word${index}`).join(" ");

/** What the model says, by what a run was asked. Whatever else it is asked, it tells the long story at the end. */
const SCRIPT = `
loop: true
turns:
  - match: {last_user_contains: "tell"}
    steps: [{text: "${words(60)}", by: word, delay_s: 0.004}]
  - match: {last_user_contains: "remove"}
    steps:
      - text: "I would like to remove something. "
        by: word
      - call: {tool: delete, args: {what: "everything"}}
  - match: {last_user_contains: "open"}
    steps:
      - call: {tool: open_file, args: {path: "notes.txt"}}
  - match: {last_user_contains: "be brief"}
    steps: [{text: "${words(2000)}", by: word, delay_s: 0.02}]
  - steps: [{text: "${words(150)}", by: word, delay_s: 0.02}]
`;

const children = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

function child(program: string[], options: Parameters<typeof spawn>[2]): ChildProcess {
  const process_ = spawn(PYTHON, program, options);
  children.add(process_);
  process_.on("exit", () => children.delete(process_));
  return process_;
}

const ended = (process_: ChildProcess): Promise<void> =>
  process_.exitCode !== null || process_.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => void process_.on("exit", () => resolve()));

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}

export class Server {
  readonly port: number;
  readonly #folder: string;
  readonly #environment: Record<string, string>;
  #process: ChildProcess | undefined;

  private constructor(port: number, environment: Record<string, string>) {
    this.port = port;
    this.#environment = environment;
    this.#folder = mkdtempSync(join(tmpdir(), "midstream-js-"));
    copyFileSync(join(ROOT, "tests/scenarios/crash_app.py"), join(this.#folder, "crash_app.py"));
    writeFileSync(join(this.#folder, "script.yaml"), SCRIPT);
    writeFileSync(join(this.#folder, "ledger"), "");
  }

  static async up(environment: Record<string, string> = {}): Promise<Server> {
    const server = new Server(await freePort(), environment);
    await server.up();
    return server;
  }

  async up(): Promise<void> {
    const log = openSync(join(this.#folder, "log"), "a");
    const process_ = child(["-m", "midstream.cli", "serve", "crash_app:app"], {
      cwd: this.#folder,
      stdio: ["ignore", log, log],
      env: {
        ...process.env,
        LEDGER: join(this.#folder, "ledger"),
        SCRIPT: join(this.#folder, "script.yaml"),
        MIDSTREAM_STORE: `sqlite:///${join(this.#folder, "runs.db")}`,
        MIDSTREAM_PORT: String(this.port),
        MIDSTREAM_DRAIN_GRACE_S: "0.2",
        PYTHONDONTWRITEBYTECODE: "1",
        ...this.#environment,
      },
    });
    this.#process = process_;
    const began = Date.now();
    for (;;) {
      if (process_.exitCode !== null || Date.now() - began > PATIENCE_MS) throw new Error(`no server: ${this.log()}`);
      const up = await fetch(`http://127.0.0.1:${this.port}/healthz`).then(
        (answer) => answer.ok,
        () => false,
      );
      if (up) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    this.#process?.kill(signal);
    if (this.#process) await ended(this.#process);
  }

  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** What the tools did, a line each. */
  did(): string[] {
    return readFileSync(join(this.#folder, "ledger"), "utf8")
      .split("\n")
      .filter((line) => line !== "");
  }

  log(): string {
    return readFileSync(join(this.#folder, "log"), "utf8");
  }

  /** What really happened, read past the proxy: the log of an ended run, and the server's own view of it. */
  async truth(runId: string, token?: string): Promise<{ events: RunEvent[]; view: View }> {
    const at = `http://127.0.0.1:${this.port}/v1/runs/${runId}`;
    const headers = {
      accept: "application/x-ndjson",
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    };
    const lines = await (await fetch(`${at}/events`, { headers })).text();
    const events = lines
      .split("\n")
      .filter((line) => line.includes('"seq"'))
      .map((line) => JSON.parse(line) as RunEvent);
    return { events, view: (await (await fetch(at, { headers })).json()) as View };
  }
}

/** As `Line` of tests/testkit/fault_proxy.py. */
export interface Line {
  refuse?: boolean;
  cut_at?: number;
  up_cut_at?: number;
  how?: "close" | "reset" | "hang";
  stall_at?: number;
  stall_s?: number;
  piece?: number;
  duplicate?: number;
  drop?: number;
  swap?: number;
  spare?: number;
  seed?: number;
}

export interface Counts {
  connections: number;
  websockets: number;
  refused: number;
  cuts: number;
  stalls: number;
  duplicated: number;
  dropped: number;
  swapped: number;
  open: number;
}

export class Proxy {
  readonly url: string;
  readonly #process: ChildProcess;
  readonly #control: Socket;
  readonly #answers: AsyncIterator<string>;

  private constructor(process_: ChildProcess, port: number, control: Socket) {
    this.url = `http://127.0.0.1:${port}`;
    this.#process = process_;
    this.#control = control;
    this.#answers = createInterface({ input: control })[Symbol.asyncIterator]();
  }

  static async up(target: number): Promise<Proxy> {
    const process_ = child(["-m", "tests.testkit.fault_proxy", "--target", String(target)], {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "inherit"],
    });
    for await (const line of createInterface({ input: process_.stdout! })) {
      const { port, control } = JSON.parse(line) as { port: number; control: number };
      const socket = dial(control, "127.0.0.1");
      await new Promise((resolve) => socket.once("connect", resolve));
      return new Proxy(process_, port, socket);
    }
    throw new Error("the proxy ended");
  }

  async #do(order: object): Promise<Counts> {
    this.#control.write(`${JSON.stringify(order)}\n`);
    const said = JSON.parse((await this.#answers.next()).value as string) as Counts & { error?: string };
    if (said.error !== undefined) throw new Error(said.error);
    return said;
  }

  plan = (lines: Line[], rest: Line = {}): Promise<Counts> => this.#do({ do: "plan", lines, rest });
  cut = (how: "close" | "reset" = "close"): Promise<Counts> => this.#do({ do: "cut", how });
  stall = (): Promise<Counts> => this.#do({ do: "stall" });
  flow = (): Promise<Counts> => this.#do({ do: "flow" });
  refuse = (): Promise<Counts> => this.#do({ do: "refuse" });
  accept = (): Promise<Counts> => this.#do({ do: "accept" });
  blockWebSockets = (blocked: boolean): Promise<Counts> => this.#do({ do: "websockets", blocked });
  seen = (): Promise<Counts> => this.#do({ do: "seen" });

  async down(): Promise<void> {
    this.#control.destroy();
    this.#process.kill();
    await ended(this.#process);
  }
}
