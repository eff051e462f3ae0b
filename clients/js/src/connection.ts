/** The I/O around the core: one link to the server, and a new one whenever that ends. */

import type { Arrival } from "./actions.js";
import { createCore } from "./core.js";
import type { Environment } from "./environment.js";
import { MidstreamError, Refused } from "./errors.js";
import type { Link } from "./link.js";
import type { ClientTool, Command, ConnectionReady, Receipt } from "./protocol.js";
import { openWebSocket } from "./websocket.js";

/** A token that is not there after this time is asked for again, with the next attempt. */
export const TOKEN_TIMEOUT_MS = 30_000;
/** WebSockets that never got ready while the server answers plain HTTP: then it is HTTP. */
export const BLOCKED_AFTER = 2;
/** After so long on HTTP, the next new connection tries a WebSocket first. */
export const WEBSOCKET_AGAIN_MS = 300_000;
const HTTP_CHECK_TIMEOUT_MS = 5000;

const LOST = 1006;
/** Close codes from here on are the server's own: it was reached. */
const FIRST_OWN_CODE = 4000;

export type Transport = "websocket" | "http";

/** Never changed in place: another object whenever something in it changed. */
export interface ConnectionState {
  readonly status: "connecting" | "ready" | "reconnecting" | "closed";
  readonly transport: Transport;
  /** Why it is not ready, for people. */
  readonly reason?: string;
  /** When the next attempt is made, in milliseconds since 1970. */
  readonly retryAt?: number;
  /** The browser says that there is no network. */
  readonly offline?: boolean;
  /** What the server said of itself on the newest connection. */
  readonly server?: ConnectionReady;
  /** Why it is closed for good. */
  readonly error?: Error;
}

export interface ConnectionOptions {
  readonly url: URL;
  readonly transport: "auto" | Transport;
  readonly environment: Environment;
  readonly clientId: () => string;
  /** The client id may still change before this. */
  readonly settled: Promise<unknown> | undefined;
  readonly getToken: (() => unknown) | undefined;
  /** Whether asking again may bring another token. */
  readonly renewable: boolean;
}

export interface ConnectionHandlers {
  deliver(runId: string, arrival: Arrival): void;
  /** A command made or found this run. `wanted`: somebody waits for it. */
  adopt(runId: string, commandId: string, wanted: boolean): void;
  detached(runId: string, error: Error | undefined): void;
  changed(state: ConnectionState): void;
  /** The page may be about to go. */
  hidden(): void;
}

interface Waiter {
  readonly resolve: (receipt: Receipt) => void;
  readonly reject: (error: unknown) => void;
}

export interface SendOptions {
  readonly commandId?: string;
  readonly signal?: AbortSignal | undefined;
  /** Tools that go with a start, to be offered again with each attach. */
  readonly tools?: readonly ClientTool[] | undefined;
}

export type Connection = ReturnType<typeof createConnection>;

export function createConnection(options: ConnectionOptions, handlers: ConnectionHandlers) {
  const { url, environment, getToken } = options;
  const { now, after, fetch } = environment;
  const core = createCore({ newId: environment.newId, random: environment.random, renewable: options.renewable });
  const waiters = new Map<string, Waiter>();
  let state: ConnectionState = { status: "connecting", transport: startingTransport(options) };
  let link: Link | undefined;
  /** Counts attempts: what an older one still brings does not count. */
  let attempt = 0;
  let performing = false;
  let cancelRetry: (() => void) | undefined;
  let alarm: { readonly at: number; readonly cancel: () => void } | undefined;
  let blocked = 0;
  let blockedAt = 0;
  let clockAheadMs = 0;

  /** A field that is undefined is removed. */
  function change(changes: { readonly [Field in keyof ConnectionState]?: ConnectionState[Field] | undefined }): void {
    const entries = Object.entries({ ...state, ...changes }).filter(([, value]) => value !== undefined);
    state = Object.fromEntries(entries) as unknown as ConnectionState;
    handlers.changed(state);
  }

  // -- what the core decided

  /** Does all that the core wants, in order, also what it wants while this is being done. */
  function perform(): void {
    if (performing) return;
    performing = true;
    try {
      for (let action = core.actions.shift(); action; action = core.actions.shift()) {
        if (action.do === "send") link?.send(action.text);
        else if (action.do === "deliver") handlers.deliver(action.runId, action.arrival);
        else if (action.do === "answer") answer(action.commandId, action.receipt);
        else if (action.do === "adopt") handlers.adopt(action.runId, action.commandId, waiters.has(action.commandId));
        else if (action.do === "detached") handlers.detached(action.runId, action.error);
        else if (action.do === "drop") hangUp(action.code);
        else if (action.do === "ready") onReady();
        else if (action.do === "connect") retry(action.delayMs, action.reason);
        else if (action.do === "renew") void renew();
        else if (action.do === "warn") environment.report(new MidstreamError("invalid", action.text));
        else onFailed(action.error);
      }
    } finally {
      performing = false;
      arm();
    }
  }

  function onReady(): void {
    const { server } = core;
    if (state.transport === "websocket") blocked = 0;
    const ahead = Date.parse(server?.now ?? "") - now();
    if (!Number.isNaN(ahead)) clockAheadMs = ahead;
    change({ status: "ready", reason: undefined, retryAt: undefined, server });
  }

  function answer(commandId: string, receipt: Receipt): void {
    const waiter = waiters.get(commandId);
    waiters.delete(commandId);
    if (receipt.status === "accepted") waiter?.resolve(receipt);
    else waiter?.reject(new Refused(receipt));
  }

  function onFailed(error: Error): void {
    cancelRetry?.();
    attempt += 1;
    for (const [source, type, listener] of listened) source?.removeEventListener(type, listener);
    for (const waiter of waiters.values()) waiter.reject(error);
    waiters.clear();
    change({ status: "closed", reason: error.message, retryAt: undefined, error });
  }

  function hangUp(code: number): void {
    attempt += 1;
    const old = link;
    link = undefined;
    if (!old) return;
    if (core.status !== "closed") countBlocked(code);
    old.close(code);
  }

  function retry(delayMs: number, reason: string): void {
    attempt += 1;
    link = undefined;
    cancelRetry?.();
    cancelRetry = after(delayMs, () => void open());
    change({ status: "reconnecting", reason, retryAt: now() + delayMs });
  }

  // -- time

  /** One timer, set anew only when it rings or has to ring earlier: frames come far more often than silence. */
  function arm(): void {
    const at = core.wakeAt();
    if (at === undefined || (alarm && alarm.at <= at)) return;
    alarm?.cancel();
    const cancel = after(Math.max(0, at - now()), () => {
      alarm = undefined;
      core.tick(now());
      perform();
    });
    alarm = { at, cancel };
  }

  // -- the link

  async function open(): Promise<void> {
    cancelRetry?.();
    cancelRetry = undefined;
    attempt += 1;
    const mine = attempt;
    const current = () => mine === attempt && core.status !== "closed";
    try {
      await options.settled;
      const token = await newToken();
      if (!current()) return;
      const transport = choose();
      if (transport !== state.transport) change({ transport });
      core.opening(now());
      arm();
      // Loaded where it is needed: most pages never do.
      const openLink = transport === "http" ? (await import("./http.js")).openHttp : openWebSocket;
      if (!current()) return;
      link = openLink(
        {
          opened() {
            if (current()) core.opening(now());
          },
          frame(text) {
            if (!current()) return;
            core.received(text, now());
            perform();
          },
          closed(code, reason) {
            if (!current()) return;
            link = undefined;
            countBlocked(code);
            core.closed(code, reason, now());
            perform();
          },
        },
        { url, clientId: options.clientId(), token, environment },
      );
    } catch (error) {
      if (!current()) return;
      core.drop(LOST, error instanceof Error ? error.message : String(error), now());
    }
    perform();
  }

  async function newToken(): Promise<string | undefined> {
    if (!getToken) return undefined;
    const token = await new Promise<unknown>((resolve, reject) => {
      const late = new MidstreamError("unauthorized", "getToken gave no token in time");
      const cancel = after(TOKEN_TIMEOUT_MS, () => reject(late));
      Promise.resolve().then(getToken).then(resolve, reject).finally(cancel);
    });
    return typeof token === "string" && token ? token : undefined;
  }

  async function renew(): Promise<void> {
    if (!options.renewable) return;
    const mine = attempt;
    try {
      const token = await newToken();
      if (token && mine === attempt) core.refresh(token);
      perform();
    } catch (error) {
      // The server will close when the token is over, and then it is asked for again.
      environment.report(error);
    }
  }

  // -- which transport

  function choose(): Transport {
    if (options.transport !== "auto" || blocked < BLOCKED_AFTER) return startingTransport(options);
    if (now() - blockedAt < WEBSOCKET_AGAIN_MS) return "http";
    blockedAt = now();
    return "websocket";
  }

  /** A WebSocket ended that was never ready: is it the network between, or is the server not there? */
  function countBlocked(code: number): void {
    const blockable = options.transport === "auto" && state.transport === "websocket";
    if (!blockable || !fetch || state.status === "ready" || code >= FIRST_OWN_CODE) return;
    const limit = new AbortController();
    const cancel = after(HTTP_CHECK_TIMEOUT_MS, () => limit.abort());
    // In order of going down it answers 503: then a WebSocket is refused for that.
    fetch(new URL("readyz", url).href, { signal: limit.signal, cache: "no-store" })
      .then(
        ({ ok }) => {
          blocked = ok ? blocked + 1 : 0;
          blockedAt = now();
        },
        () => (blocked = 0),
      )
      .finally(cancel);
  }

  // -- the life of a page

  function wake(): void {
    if (core.status === "ready") core.probe(now());
    else if (cancelRetry) void open();
    perform();
  }

  const visible = () => (environment.document?.visibilityState === "hidden" ? handlers.hidden() : wake());
  const online = () => {
    // Another network may let WebSockets through.
    blocked = 0;
    change({ offline: undefined });
    wake();
  };
  const listened = [
    [environment.window, "online", online],
    [environment.window, "offline", () => change({ offline: true })],
    [environment.window, "pageshow", wake],
    [environment.window, "pagehide", handlers.hidden],
    [environment.document, "visibilitychange", visible],
  ] as const;
  for (const [source, type, listener] of listened) source?.addEventListener(type, listener);

  return {
    get state() {
      return state;
    },
    localTime: (serverTime: string) => new Date(Date.parse(serverTime) - clockAheadMs),
    newToken,
    open: () => void open(),

    /** Connect now instead of waiting. */
    reconnect(): void {
      if (core.status !== "closed") wake();
    },

    /** One command; its receipt. Sent again after a reconnect under the same id. Rejects with the refusal. */
    send(type: Command["type"], runId: string | undefined, payload: object, send: SendOptions = {}): Promise<Receipt> {
      const { commandId: id = environment.newId("cmd"), signal, tools } = send;
      return new Promise((resolve, reject) => {
        signal?.throwIfAborted();
        if (state.error) throw state.error;
        const aborted = () => {
          waiters.delete(id);
          core.forget(id);
          reject(signal?.reason);
        };
        const settled = () => signal?.removeEventListener("abort", aborted);
        const waiter: Waiter = {
          resolve: (receipt) => (settled(), resolve(receipt)),
          reject: (error) => (settled(), reject(error)),
        };
        waiters.set(id, waiter);
        try {
          core.command(id, type, runId, payload, tools);
        } catch (error) {
          waiters.delete(id);
          throw new MidstreamError("malformed", "this cannot be sent as JSON", { cause: error });
        }
        signal?.addEventListener("abort", aborted);
        perform();
      });
    },

    /** Something of the core, and what follows from it. */
    with(change: (its: typeof core) => void): void {
      change(core);
      perform();
    },

    /** What was received cannot be used. */
    broken(reason: string): void {
      core.drop(1002, reason, now());
      perform();
    },

    close(): void {
      core.close();
      perform();
      alarm?.cancel();
    },
  };
}

function startingTransport({ transport, environment }: ConnectionOptions): Transport {
  if (transport !== "auto") return transport;
  return environment.WebSocket ? "websocket" : "http";
}
