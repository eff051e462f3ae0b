/** The HTTP endpoints as functions (PROTOCOL §7). A refusal rejects with `Refused`, no answer with `Disconnected`. */

import type { Environment } from "./environment.js";
import { Disconnected, MidstreamError, Refused } from "./errors.js";
import type { View } from "./protocol.js";

/** A run in a list: its view without `messages`, `calls` and `steps`, when it was started, and how its input begins. */
export type RunSummary = Omit<View, "messages" | "calls" | "steps"> & { started_at: string; input: string };

export interface Page<Item> {
  readonly items: readonly Item[];
  /** Give it as `cursor` for the next page; absent on the last one. */
  readonly next_cursor?: string;
}

/** What `GET /v1/agents` says of an agent; more fields may be there. */
export interface AgentInfo {
  readonly name: string;
  readonly description?: string;
  readonly [field: string]: unknown;
}

export interface ThreadInfo {
  readonly thread_id: string;
  readonly title?: string;
  /** The run that has the thread now. */
  readonly active?: string;
  readonly queue: readonly string[];
  readonly runs: readonly string[];
}

/** A tool that needs no approval any more, and where. */
export interface Grant {
  readonly grant_id: string;
  readonly scope: string;
  readonly tool: string;
  readonly agent: string;
  readonly risk: string;
  readonly thread_id?: string;
  readonly created_at: string;
  readonly expires_at?: string;
  readonly by: string;
  readonly from: { readonly run_id: string; readonly approval_id: string; readonly label?: string };
}

/** What was tried and given up. `kind` is open; `tool` and `webhook` have the optional fields named for them. */
export interface DeadLetter {
  readonly id: string;
  readonly kind: string;
  readonly run_id: string;
  readonly thread_id: string;
  readonly at: string;
  /** The tool's name, or where the webhook was to go. */
  readonly what: string;
  readonly code: string;
  readonly text: string;
  readonly attempts: number;
  /** `tool` */
  readonly agent?: string;
  readonly label?: string;
  readonly outcome?: string;
  readonly tool_call_id?: string;
  /** `webhook` */
  readonly event?: string;
  readonly seq?: number;
}

export interface RequestOptions {
  signal?: AbortSignal | undefined;
}

export interface ListOptions extends RequestOptions {
  limit?: number | undefined;
  /** `next_cursor` of the page before. */
  cursor?: string | undefined;
}

export interface ListRunsOptions extends ListOptions {
  status?: string | undefined;
  threadId?: string | undefined;
}

export interface Rest {
  /** Newest first. */
  runs(options?: ListRunsOptions): Promise<Page<RunSummary>>;
  view(runId: string, options?: RequestOptions): Promise<View>;
  /** Erases an ended run. Rejects with `run_active` for one that goes on. */
  delete(runId: string, options?: RequestOptions): Promise<void>;
  agents(options?: RequestOptions): Promise<readonly AgentInfo[]>;
  thread(threadId: string, options?: RequestOptions): Promise<ThreadInfo>;
  grants(options?: ListOptions): Promise<Page<Grant>>;
  revokeGrant(grantId: string, options?: RequestOptions): Promise<void>;
  deadLetters(options?: ListOptions & { kind?: string | undefined }): Promise<Page<DeadLetter>>;
  dismissDeadLetter(id: string, options?: RequestOptions): Promise<void>;
  /** All of them, or all of a kind. */
  dismissDeadLetters(options?: RequestOptions & { kind?: string | undefined }): Promise<void>;
  /** Any endpoint below the server's address: `request("GET", "v1/schema")`. The JSON of the answer, if it has any. */
  request(method: string, path: string, options?: Request): Promise<unknown>;
}

interface Request extends RequestOptions {
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
}

export interface RestOptions {
  readonly url: URL;
  readonly environment: Environment;
  readonly newToken: () => Promise<string | undefined>;
  readonly renewable: boolean;
}

export function createRest({ url, environment, newToken, renewable }: RestOptions): Rest {
  async function once(method: string, address: URL, { body, signal }: Request): Promise<Response> {
    if (!environment.fetch) throw new MidstreamError("no_transport", "there is no fetch here: give one to connect");
    const token = await newToken();
    const headers: Record<string, string> = { accept: "application/json" };
    if (token) headers["authorization"] = `Bearer ${token}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    try {
      return await environment.fetch(address.href, {
        method,
        headers,
        ...(signal && { signal }),
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw new Disconnected(1006, error instanceof Error ? error.message : String(error));
    }
  }

  async function request(method: string, path: string, options: Request = {}): Promise<any> {
    const address = new URL(path, url);
    for (const [name, value] of Object.entries(options.query ?? {})) {
      if (value !== undefined) address.searchParams.set(name, String(value));
    }
    let answer = await once(method, address, options);
    // The token may have expired between two requests: another one may do.
    if (answer.status === 401 && renewable) answer = await once(method, address, options);
    const text = await answer.text();
    let body: any;
    try {
      body = text ? JSON.parse(text) : undefined;
    } catch {
      const text = `${address.pathname} did not answer with JSON: is it a Midstream server?`;
      if (answer.ok) throw new MidstreamError("invalid", text);
    }
    if (answer.ok) return body;
    const said = body?.error ?? {};
    const code = answer.status === 404 ? "not_found" : "invalid";
    const unsaid = { code, text: `the server answered ${answer.status}` };
    throw new Refused(typeof said.code === "string" ? said : unsaid, answer.status);
  }

  const at = (path: string, id: string) => `${path}/${encodeURIComponent(id)}`;
  // All that is asked for beside the signal goes into the query.
  const get = (path: string, { signal, ...query }: RequestOptions = {}) => request("GET", path, { signal, query });
  const remove = async (path: string, { signal, ...query }: RequestOptions = {}): Promise<void> => {
    await request("DELETE", path, { signal, query });
  };

  return {
    request,
    runs: ({ threadId, ...options } = {}) => get("v1/runs", { ...options, ...(threadId && { thread_id: threadId }) }),
    view: (runId, options) => get(at("v1/runs", runId), options),
    delete: (runId, options) => remove(at("v1/runs", runId), options),
    agents: async (options) => (await get("v1/agents", options)).items,
    thread: (threadId, options) => get(at("v1/threads", threadId), options),
    grants: (options) => get("v1/grants", options),
    revokeGrant: (grantId, options) => remove(at("v1/grants", grantId), options),
    deadLetters: (options) => get("v1/dead-letters", options),
    dismissDeadLetter: (id, options) => remove(at("v1/dead-letters", id), options),
    dismissDeadLetters: (options) => remove("v1/dead-letters", options),
  };
}
