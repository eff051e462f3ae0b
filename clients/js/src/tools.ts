/** Tools that this client runs for the agent: what is offered, and the calls. */

import { MidstreamError } from "./errors.js";
import type { ClientTool, PendingTool, Receipt, ToolResult, View } from "./protocol.js";

export interface ToolDefinition {
  name: string;
  description?: string;
  /** JSON Schema of the arguments. A tool that the agent declares needs only its name. */
  inputSchema?: Record<string, unknown>;
}

export interface ToolCall {
  readonly runId: string;
  readonly toolCallId: string;
  readonly tool: string;
  readonly label: string;
  /** Aborted when nobody waits for the result any more: cancelled, timed out, the run is over, the client closed. */
  readonly signal: AbortSignal;
  /** Tells how it is getting on. Of several while one is on its way, only the newest is sent. */
  progress(report: { text?: string; fraction?: number }): void;
}

/** `args` are what the model wrote, checked by the server against the tool's schema. The result must be JSON. */
export type ToolHandler = (args: any, call: ToolCall) => unknown;

/** By name: the function alone, for tools that the agent declares, or with what describes the tool. */
export type Tools = Readonly<Record<string, ToolHandler | (Omit<ToolDefinition, "name"> & { run: ToolHandler })>>;

/** What running tools needs of the run. */
export interface ToolHost {
  readonly runId: string;
  readonly clientId: () => string;
  readonly offer: (tools: readonly ClientTool[]) => void;
  readonly send: (result: ToolResult) => Promise<Receipt>;
  /** Calls that this client has begun, of all runs: none is begun twice. */
  readonly begun: Set<string>;
}

export type Toolbox = ReturnType<typeof createToolbox>;

export function createToolbox(host: ToolHost, tools: Tools, declared?: readonly (ClientTool | string)[]) {
  const offered = new Map(offeredOf(tools, declared).map((tool) => [tool.name, tool]));
  const handlers = new Map<string, ToolHandler>();
  for (const [name, tool] of Object.entries(tools)) handlers.set(name, typeof tool === "function" ? tool : tool.run);
  const running = new Map<string, AbortController>();
  let pending: View["pending"] = [];

  const list = () => [...offered.values()];

  async function perform(call: PendingTool, handler: ToolHandler): Promise<void> {
    const { tool_call_id, tool, label } = call;
    const abort = new AbortController();
    running.set(tool_call_id, abort);
    const { signal } = abort;
    const send = (said: Omit<ToolResult, "tool_call_id">) => host.send({ tool_call_id, ...said });
    let newest: { text?: string; fraction?: number } | undefined;
    let sending = false;
    const sendProgress = async () => {
      sending = true;
      while (newest && !signal.aborted) {
        const progress = newest;
        newest = undefined;
        await send({ progress }).catch(() => {});
      }
      sending = false;
    };
    let answer: Omit<ToolResult, "tool_call_id">;
    try {
      const result = await handler(call.args, {
        runId: host.runId,
        toolCallId: tool_call_id,
        tool,
        label,
        signal,
        progress(report) {
          newest = report;
          if (!sending && running.has(tool_call_id)) void sendProgress();
        },
      });
      answer = { ok: true, result: result ?? null };
    } catch (error) {
      answer = { ok: false, error: said(error) };
    }
    running.delete(tool_call_id);
    newest = undefined;
    if (signal.aborted) return;
    try {
      await send(answer);
    } catch (error) {
      // A result that cannot be sent is a failure that the agent should hear of; any other refusal says it is too late.
      const unsendable = error instanceof MidstreamError && ["too_large", "malformed"].includes(error.code);
      if (unsendable) await send({ ok: false, error: said(error) }).catch(() => {});
    }
  }

  /** Begins the calls that wait for this client, and stops the ones that do not wait any more. */
  function check(): void {
    const open = new Set<string>();
    for (const call of pending) {
      if (call.kind !== "tool" || call.client_id !== host.clientId()) continue;
      open.add(call.tool_call_id);
      const handler = handlers.get(call.tool);
      const key = `${host.runId}/${call.tool_call_id}`;
      if (!handler || host.begun.has(key)) continue;
      host.begun.add(key);
      void perform(call, handler);
    }
    for (const [id, abort] of running) {
      if (!open.has(id)) abort.abort();
    }
  }

  return {
    list,

    register(tool: string | ToolDefinition, handler: ToolHandler): () => void {
      const definition = typeof tool === "string" ? { name: tool } : tool;
      const described = describe(definition);
      // First: what cannot be sent is not kept either.
      host.offer([...list().filter(({ name }) => name !== described.name), described]);
      offered.set(described.name, described);
      handlers.set(described.name, handler);
      check();
      return () => {
        if (handlers.get(definition.name) !== handler) return;
        handlers.delete(definition.name);
        offered.delete(definition.name);
        host.offer(list());
      };
    },

    /** What waits for an answer now, by a view that is not of the past. */
    update(now: View["pending"]): void {
      if (now === pending) return;
      pending = now;
      check();
    },

    stop(): void {
      for (const abort of running.values()) abort.abort();
    },
  };
}

/** What is offered to the server: each name once. */
export function offeredOf(tools: Tools, declared: readonly (ClientTool | string)[] = []): readonly ClientTool[] {
  const all = new Map<string, ClientTool>();
  for (const tool of declared) {
    if (typeof tool === "string") all.set(tool, { name: tool });
    else all.set(tool.name, tool);
  }
  for (const [name, tool] of Object.entries(tools)) {
    all.set(name, describe(typeof tool === "function" ? { name } : { ...tool, name }));
  }
  return [...all.values()];
}

function describe({ name, description, inputSchema }: ToolDefinition): ClientTool {
  return { name, ...(description && { description }), ...(inputSchema && { input_schema: inputSchema }) };
}

function said(error: unknown): { code: string; text: string } {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  return {
    code: typeof code === "string" && code ? code : "failed",
    text: typeof message === "string" && message ? message : String(error),
  };
}
