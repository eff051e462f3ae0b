/** A server in a few lines, as PROTOCOL.md describes one, and the sockets to it. What gets through is up to the test. */

import { foldAll, emptyView } from "../../src/view.js";
import type { RunEvent } from "../../src/protocol.js";

type Json = Record<string, any>;

export const EPOCH = "e_1";

export function frame(type: string, payload: Json): string {
  return JSON.stringify({ v: 1, type, payload });
}

export function event(seq: number, type = "message.delta", payload?: Json, runId = "run_1"): RunEvent {
  const told = payload ?? { message_id: "msg_1", text: `${seq} ` };
  return { v: 1, seq, run_id: runId, type, ts: "2026-01-01T00:00:00.000Z", payload: told } as unknown as RunEvent;
}

const USAGE = { input_tokens: 1, output_tokens: 1, cached_input_tokens: 0, total_tokens: 2, by_model: {} };

export interface FakeServerOptions {
  heartbeatS?: number;
  commandsInFlight?: number;
  /** Events that one full replay may have; ten times as many when merged. */
  maxReplay?: number;
  now?: () => number;
}

/** The durable part: logs, receipts and what was done. */
export class FakeServer {
  readonly logs = new Map<string, RunEvent[]>();
  readonly receipts = new Map<string, string>();
  /** Commands that took effect, in order. */
  readonly performed: Json[] = [];
  /** Everything that was received, with the number of its connection. */
  readonly received: { connection: number; command: Json }[] = [];
  readonly sockets: FakeSocket[] = [];
  readonly options: FakeServerOptions;
  epoch = EPOCH;
  /** Refuses commands of these types: the receipt's fields. */
  readonly refusals = new Map<string, Json>();
  /** What a new socket meets: a ready connection, nothing at all, or a close with this code. */
  door: "open" | "silent" | number = "open";
  /** Frames wait until `deliver`. */
  held = false;
  trimmedTo = 0;

  constructor(options: FakeServerOptions = {}) {
    this.options = options;
  }

  get socket(): FakeSocket {
    const last = this.sockets.at(-1);
    if (!last) throw new Error("nobody has connected");
    return last;
  }

  log(runId = "run_1"): RunEvent[] {
    const known = this.logs.get(runId);
    if (known) return known;
    const log: RunEvent[] = [event(1, "run.started", { agent: "a", thread_id: "th_1" }, runId)];
    log.push(event(2, "message.started", { message_id: "msg_1", role: "assistant", agent: "a" }, runId));
    this.logs.set(runId, log);
    return log;
  }

  append(count = 1, runId = "run_1"): void {
    for (let each = 0; each < count; each += 1) this.write("message.delta", undefined, runId);
  }

  write(type: string, payload?: Json, runId = "run_1"): void {
    const log = this.log(runId);
    const made = event(log.length + 1, type, payload, runId);
    log.push(made);
    for (const socket of this.sockets) {
      if (socket.following.has(runId)) socket.say(JSON.stringify(made));
    }
  }

  end(runId = "run_1"): void {
    this.write("run.completed", { result: "done", usage: USAGE, digest: "d" }, runId);
    for (const socket of this.sockets) socket.following.delete(runId);
  }

  ended(runId = "run_1"): boolean {
    return this.log(runId).at(-1)?.type === "run.completed";
  }

  /** The commands of this type that came, of all connections. */
  commands(type: string): Json[] {
    return this.received.map(({ command }) => command).filter((command) => command["type"] === type);
  }

  ready(clientId: string): string {
    const { heartbeatS = 10, commandsInFlight = 64, now = Date.now } = this.options;
    return frame("connection.ready", {
      connection_id: `conn_${this.sockets.length}`,
      client_id: clientId,
      server: "midstream/0",
      now: new Date(now()).toISOString(),
      heartbeat_s: heartbeatS,
      principal: { id: "p", name: "p" },
      limits: {
        max_frame_bytes: 1 << 20,
        max_input_bytes: 1 << 18,
        max_tool_result_bytes: 1 << 19,
        max_runs: 100,
        commands_in_flight: commandsInFlight,
        command_memory_s: 3600,
      },
    });
  }

  receive(socket: FakeSocket, text: string): void {
    const command = JSON.parse(text) as Json;
    this.received.push({ connection: this.sockets.indexOf(socket), command });
    const { type, command_id, payload = {} } = command;
    const runId: string = command["run_id"] ?? payload.run_id ?? "run_1";
    const refusal = this.refusals.get(type);
    const receipt = (more: Json) => frame("receipt", { command_id, status: "accepted", run_id: runId, ...more });
    if (type === "ping") return socket.say(frame("pong", payload));
    if (refusal) return socket.say(receipt({ status: "rejected", text: "no", ...refusal }));
    if (type === "run.detach") {
      socket.following.delete(runId);
      return socket.say(receipt({}));
    }
    if (type === "run.attach") {
      if (!this.logs.has(runId)) return socket.say(receipt({ status: "rejected", code: "not_found", text: "no such run" }));
      socket.say(receipt({}));
      return this.#attach(socket, command_id, runId, payload);
    }
    if (type === "tools.offer" || type === "auth.refresh") return socket.say(receipt({}));
    let said = this.receipts.get(command_id);
    if (!said) {
      this.performed.push(command);
      if (type === "run.start") this.log(runId);
      said = receipt({ at_seq: this.log(runId).length });
      this.receipts.set(command_id, said);
    }
    socket.say(said);
    if (type === "run.start") this.#attach(socket, command_id, runId, {});
  }

  #attach(socket: FakeSocket, commandId: string, runId: string, { since_seq: since = 0, replay, epoch }: Json): void {
    const log = this.log(runId);
    const over = this.ended(runId);
    socket.say(
      frame("run.attached", {
        command_id: commandId,
        run_id: runId,
        thread_id: "th_1",
        epoch: this.epoch,
        head_seq: log.length,
        first_seq: this.trimmedTo + 1,
        status: over ? "completed" : "running",
        can: ["correct", "cancel", "approve", "input"],
        pending: [],
      }),
    );
    const most = (this.options.maxReplay ?? Infinity) * (replay === "merged" ? 10 : 1);
    const reason =
      epoch !== undefined && epoch !== this.epoch ? "epoch"
      : replay === "snapshot" ? "requested"
      : since > log.length ? "ahead"
      : since < this.trimmedTo ? "trimmed"
      : log.length - since > most ? "too_far"
      : undefined;
    if (reason) this.reset(socket, reason, runId);
    else for (const each of log.slice(since)) socket.say(JSON.stringify(each));
    socket.say(frame("run.caught_up", { run_id: runId, seq: log.length }));
    if (!over) socket.following.add(runId);
  }

  reset(socket: FakeSocket, reason: string, runId = "run_1"): void {
    const log = this.log(runId);
    const snapshot = foldAll(emptyView(runId), log, this.epoch);
    socket.say(frame("run.reset", { run_id: runId, reason, epoch: this.epoch, snapshot, snapshot_seq: log.length }));
  }
}

/** The client's end of a connection, and what is on its way to it. */
export class FakeSocket {
  readonly following = new Set<string>();
  readonly url: URL;
  readonly protocols: readonly string[];
  out: string[] = [];
  open = false;
  closedWith: number | undefined;
  onopen: ((event: any) => void) | null = null;
  onmessage: ((event: any) => void) | null = null;
  onclose: ((event: any) => void) | null = null;
  onerror: ((event: any) => void) | null = null;
  readonly #server: FakeServer;

  constructor(server: FakeServer, url: string, protocols: readonly string[]) {
    this.#server = server;
    this.url = new URL(url);
    this.protocols = protocols;
    server.sockets.push(this);
    const { door } = server;
    queueMicrotask(() => {
      if (this.closedWith !== undefined || door === "silent") return;
      if (typeof door === "number") return this.cut(door);
      this.open = true;
      this.onopen?.({});
      this.say(server.ready(this.url.searchParams.get("client_id") ?? ""));
    });
  }

  send(text: string): void {
    if (!this.open) throw new Error("sent before it was open");
    this.#server.receive(this, text);
  }

  close(code = 1005): void {
    this.open = false;
    this.closedWith = code;
    this.following.clear();
  }

  /** From the server. */
  say(text: string): void {
    this.out.push(text);
    if (!this.#server.held) queueMicrotask(() => this.deliver());
  }

  deliver(count = Infinity): void {
    for (let each = 0; each < count && this.open; each += 1) {
      const text = this.out.shift();
      if (text === undefined) return;
      this.onmessage?.({ data: text });
    }
  }

  cut(code = 1006, reason = ""): void {
    this.open = false;
    this.following.clear();
    if (this.closedWith === undefined) this.onclose?.({ code, reason });
    this.closedWith ??= code;
  }
}
