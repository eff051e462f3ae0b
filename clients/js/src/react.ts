/**
 * React hooks over the client. A component is told at most once per frame, however many deltas came, and what it gets
 * changes identity only when it changed. Under Preact they work by `preact/compat`; on a server they render as "not there
 * yet".
 *
 * Each takes the client first; below a `MidstreamProvider` it may be left out.
 */

import { createContext, createElement, type ReactElement, type ReactNode, useContext, useMemo } from "react";
import type { Approval, Client, ConnectionState, ObjectCreated, Run } from "./index.js";
import { elementsOf, type ObjectOptions, type Renderers } from "./react/objects.js";
import { idleStore, NONE, type RunState, storeOf, storeOfId } from "./react/runs.js";
import { type IsEqual, type Select, type Store, useStore } from "./react/store.js";

export type { ObjectOptions, ObjectProps, ObjectRenderer, Renderers } from "./react/objects.js";
export type { RunState } from "./react/runs.js";
export type { IsEqual, Select } from "./react/store.js";

/** An id, or a run that the application follows itself; nothing yet is fine too. */
export type RunTarget = string | Run | null | undefined;

const CONNECTING: ConnectionState = { status: "connecting", transport: "websocket" };

const Context = createContext<Client | undefined>(undefined);

/** Gives `client` to the hooks below it. Closing it stays with whoever made it. */
export function MidstreamProvider({ client, children }: { client: Client; children?: ReactNode }): ReactElement {
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the nearest `MidstreamProvider`. Throws if there is none. */
export function useClient(): Client {
  return needed(useContext(Context));
}

/**
 * One run. Given an id it is attached while a component shows it, unless it is followed already; `run` has its commands:
 * `run?.cancel()`. A run that cannot be had is a state, `status: "error"` with `error`, and throws nothing.
 *
 * `select` narrows it: the component is drawn again only when what it returns is another (`isEqual`, default: item by
 * item, one level deep): `useRun(client, id, ({ view }) => view?.plan)`.
 */
export function useRun(client: Client, run: RunTarget): RunState;
export function useRun<Value>(client: Client, run: RunTarget, select: Select<RunState, Value>, isEqual?: IsEqual<Value>): Value;
export function useRun(run: RunTarget): RunState;
export function useRun<Value>(run: RunTarget, select: Select<RunState, Value>, isEqual?: IsEqual<Value>): Value;
export function useRun(...args: unknown[]): unknown {
  const [client, target, select, isEqual] = useArguments<[RunTarget, Select<RunState, unknown>?, IsEqual<unknown>?]>(args);
  return useStore(useRunStore(client, target), select, isEqual);
}

/** What waits for approval in all runs that are followed, oldest first. A run's own: `useRun(…).approvals`. */
export function useApprovals(client?: Client): readonly Approval[] {
  const [given] = useArguments([client]);
  const its = needed(given);
  const store = useMemo(() => ofClient<readonly Approval[]>(its, () => its.approvals, NONE), [its]);
  return useStore(store);
}

/** The connection: `status`, `transport`, `reason`, `retryAt`, `error`. `select` as with `useRun`. */
export function useConnection(client?: Client): ConnectionState;
export function useConnection<Value>(client: Client, select: Select<ConnectionState, Value>, isEqual?: IsEqual<Value>): Value;
export function useConnection<Value>(select: Select<ConnectionState, Value>, isEqual?: IsEqual<Value>): Value;
export function useConnection(...args: unknown[]): unknown {
  const [client, select, isEqual] = useArguments<[Select<ConnectionState, unknown>?, IsEqual<unknown>?]>(args);
  const its = needed(client);
  const store = useMemo(() => ofClient<ConnectionState>(its, () => its.connection, CONNECTING), [its]);
  return useStore(store, select, isEqual);
}

/**
 * A run's objects as elements, in order, each drawn by the renderer of its kind: what the agent shows that is more than
 * text. `options` choose those of one message or one call, and what draws kinds that `renderers` does not have, and
 * objects that their renderer threw on (default: nothing).
 */
export function useObjects(
  client: Client,
  run: RunTarget,
  renderers: Renderers,
  options?: ObjectOptions,
): readonly ReactElement[];
export function useObjects(run: RunTarget, renderers: Renderers, options?: ObjectOptions): readonly ReactElement[];
export function useObjects(...args: unknown[]): readonly ReactElement[] {
  const [client, target, renderers, options = {}] = useArguments<[RunTarget, Renderers, ObjectOptions?]>(args);
  const { messageId, toolCallId, fallback } = options;
  const [run, ...objects] = useStore(useRunStore(client, target), ({ run, view }): [Run | undefined, ...ObjectCreated[]] => [
    run,
    ...(view?.objects ?? NONE).filter(
      (object) =>
        (messageId === undefined || object.message_id === messageId) &&
        (toolCallId === undefined || object.tool_call_id === toolCallId),
    ),
  ]);
  return elementsOf(objects, run, renderers, fallback);
}

function useRunStore(client: Client | undefined, target: RunTarget): Store<RunState> {
  const its = typeof target === "string" ? needed(client) : undefined;
  return useMemo(() => {
    if (its && typeof target === "string") return storeOfId(its, target);
    return target && typeof target === "object" ? storeOf(target) : idleStore;
  }, [its, target]);
}

/** The client, given or provided, and the arguments after it. */
function useArguments<Rest extends unknown[]>(args: readonly unknown[]): [Client | undefined, ...Rest] {
  const provided = useContext(Context);
  const [first, ...rest] = args;
  if (isClient(first)) return [first, ...(rest as Rest)];
  return [provided, ...(args as Rest)];
}

function isClient(value: unknown): value is Client {
  return typeof value === "object" && value !== null && "attach" in value;
}

function needed(client: Client | undefined): Client {
  if (client) return client;
  throw new Error("there is no client: give it as the first argument, or put a MidstreamProvider around this component");
}

function ofClient<State>(client: Client, get: () => State, initial: State): Store<State> {
  return { get, initial: () => initial, subscribe: (listener) => client.subscribe(listener) };
}
