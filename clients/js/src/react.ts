"use client";

/**
 * React hooks over the client: what they return changes identity exactly when it changed, and a component is told once per
 * frame however many deltas came. Also under Preact (`preact/compat`). On a server they render as "not there yet".
 *
 * Each takes the client first; below a `MidstreamProvider` it may be left out.
 */

import {
  Component,
  type ComponentType,
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
} from "react";
import type { Approval, Client, ConnectionState, ObjectCreated, Question, Run, View } from "./index.js";
import { type RunState, runStore, type Store } from "./react/runs.js";

export type { RunState } from "./react/runs.js";

/** Whether two selected values count as the same; then the component is not drawn again. */
export type IsEqual<Value> = (before: Value, now: Value) => boolean;

const NONE: readonly never[] = [];
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
