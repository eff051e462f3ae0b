/** The client's contract: what it is given, and what it does. */

import type { Approval } from "./approvals.js";
import type { ConnectionState } from "./connection.js";
import type { Replay } from "./cursor.js";
import type { Environment, StorageLike } from "./environment.js";
import type { ClientTool, RunStart } from "./protocol.js";
import type { Rest } from "./rest.js";
import type { Run, Update } from "./run.js";
import type { Tools } from "./tools.js";

export interface ConnectOptions extends Partial<Environment> {
  /**
   * http(s):// or ws(s)://, of the server or of the prefix it is mounted below (`https://x.example/agents`). In a
   * browser also relative to the page.
   */
  url: string | URL;
  /** Asked before every attempt to connect and every HTTP request. */
  getToken?: (() => string | null | undefined | Promise<string | null | undefined>) | undefined;
  /** A token that does not change. */
  token?: string | undefined;
  /** Names this client in events, and hosts its tools. In a browser it is kept per tab; else random. */
  clientId?: string | undefined;
  /** Where to keep how far iterators came, so that a reloaded page goes on there. Default: nowhere. */
  storage?: StorageLike | null | undefined;
  /** `auto` (default): WebSocket, and SSE + POST where WebSockets never get through. */
  transport?: "auto" | "websocket" | "http" | undefined;
  /** Tools that this client runs, offered to every run it starts or attaches. */
  tools?: Tools | undefined;
}

export interface StartOptions {
  /** May be left out with `resume` only. */
  input?: RunStart["input"] | undefined;
  agent?: string | undefined;
  /** Made by the application: then the start can be repeated without knowing its answer. */
  runId?: string | undefined;
  threadId?: string | undefined;
  ifBusy?: NonNullable<RunStart["if_busy"]> | undefined;
  /** What a failed run's `failure.resume` gave, or its id. */
  resume?: { readonly run_id?: string } | string | undefined;
  /** Tools this client runs in this run. */
  tools?: Tools | undefined;
  /** Tools to offer whose handlers are registered later. */
  clientTools?: readonly (ClientTool | string)[] | undefined;
  limits?: { maxTurns?: number; maxToolCalls?: number; deadlineS?: number } | undefined;
  onAbandon?: "continue" | "pause" | { cancelAfterS: number } | undefined;
  onLag?: "continue" | "pause" | undefined;
  webhook?: { url: string; events?: readonly string[] } | undefined;
  metadata?: Record<string, unknown> | undefined;
  onUpdate?: ((update: Update) => void) | undefined;
  /** Stops waiting. A start that was sent already may have begun a run. */
  signal?: AbortSignal | undefined;
}

export interface AttachOptions {
  /** Iterators begin after this event; the view is whole all the same. Default: what `storage` has, else 0. */
  sinceSeq?: number | undefined;
  /** The epoch that `sinceSeq` is of. */
  epoch?: string | undefined;
  /** `snapshot`: no history, iterators begin with what happens from now on. `merged`: deltas joined, for long logs. */
  replay?: Replay | undefined;
  onUpdate?: ((update: Update) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface Client {
  readonly clientId: string;
  readonly connection: ConnectionState;
  /** The first connection is ready. Rejects on a final refusal. */
  readonly ready: Promise<void>;
  /** Runs that are followed now. */
  readonly runs: readonly Run[];
  /** Open ones of all followed runs, oldest run first. The same list as long as nothing changed. */
  readonly approvals: readonly Approval[];
  readonly rest: Rest;
  /** Called when the connection, the set of runs or the approvals changed; at most once per animation frame. */
  subscribe(listener: () => void): () => void;
  /** Starts a run and follows it. Rejects with the refusal. */
  start(options: StartOptions): Promise<Run>;
  /** Follows a run that exists; the same `Run` when it is followed already. Rejects with the refusal. */
  attach(runId: string, options?: AttachOptions): Promise<Run>;
  /** The run of that id, if it is followed. */
  run(runId: string): Run | undefined;
  /** Connect now instead of waiting. */
  reconnect(): void;
  /** The end: what waits rejects with `Disconnected`. Runs go on at the server. */
  close(): void;
}

/** A start's options as the protocol names them. */
export function startOf(options: Omit<StartOptions, "tools" | "clientTools" | "onUpdate" | "signal">): object {
  const { input, agent, runId, threadId, ifBusy, resume, limits, onAbandon, onLag, webhook, metadata } = options;
  return {
    input,
    agent,
    run_id: runId,
    thread_id: threadId,
    if_busy: ifBusy,
    resume: typeof resume === "string" ? { run_id: resume } : resume,
    limits: limits && {
      max_turns: limits.maxTurns,
      max_tool_calls: limits.maxToolCalls,
      deadline_s: limits.deadlineS,
    },
    on_abandon: typeof onAbandon === "object" ? { cancel_after_s: onAbandon.cancelAfterS } : onAbandon,
    on_lag: onLag,
    webhook,
    metadata,
  };
}
