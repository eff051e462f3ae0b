/** The wire's types under the names that programs use, and the few facts of the protocol that a client decides by. */

import type * as wire from "./protocol.gen.js";

export type * from "./protocol.gen.js";

/**
 * One event of a run, discriminated by `type`. (`Event` is the DOM's.) A newer server may send types that are not in
 * this union: give a `switch` over `type` a `default` that passes over them.
 */
export type RunEvent = wire.Event;
export type EventType = RunEvent["type"];
export type EventOf<Type extends EventType> = Extract<RunEvent, { type: Type }>;
export type FrameOf<Type extends wire.Frame["type"]> = Extract<wire.Frame, { type: Type }>;
export type CommandOf<Type extends wire.Command["type"]> = Extract<wire.Command, { type: Type }>;

/** What waits for an answer: the payload that opened it, with its `kind`. */
export type PendingApproval = { kind: "approval" } & wire.ApprovalRequired;
export type PendingInput = { kind: "input" } & wire.InputRequired;
export type PendingTool = { kind: "tool" } & wire.ToolRequested;
export type Pending = PendingApproval | PendingInput | PendingTool;

type Kept<Value> = Value extends (infer Item)[] ? readonly Item[] : Value;

/** What a run's log adds up to. Never changed in place: what did not change keeps its identity. */
export type View = {
  readonly [Field in keyof wire.View]: Field extends "pending" ? readonly Pending[] : Kept<wire.View[Field]>;
};
export type RunStatus = View["status"];
export type CallState = wire.CallView["state"];

/** The protocol's version: the `v` of every frame. */
export const PROTOCOL_VERSION = 1;

const TERMINAL_TYPES = ["run.completed", "run.failed", "run.cancelled"] as const;

export type TerminalType = (typeof TERMINAL_TYPES)[number];
export type TerminalEvent = EventOf<TerminalType>;

/** Whether `event` is the run's last one. */
export function isTerminal(event: RunEvent): event is TerminalEvent {
  return (TERMINAL_TYPES as readonly string[]).includes(event.type);
}

/** Whether a run with this status has ended: nothing follows, and nothing can be asked of it. */
export function isEnded(status: RunStatus): status is "completed" | "failed" | "cancelled" {
  return status === "completed" || status === "failed" || status === "cancelled";
}

/** The close codes that a server sends (PROTOCOL.md, section 8). */
export const CLOSE = {
  done: 1000,
  tooBig: 1009,
  draining: 4001,
  internal: 4004,
  tokenExpired: 4005,
  tooSlow: 4008,
  rateLimited: 4013,
  badCredentials: 4500,
  badRequest: 4501,
  forbidden: 4503,
  tooManyConnections: 4504,
  tooManyErrors: 4509,
} as const;

/** Whether to come back after a close with `code`: codes are in bands, so unknown ones are decided too. */
export function mayRetry(code: number): boolean {
  return code < 4500 && code !== CLOSE.done && code !== CLOSE.tooBig;
}

/** Why a command is refused (PROTOCOL.md, section 3). The set is open: a newer server may say others. */
export type RefusalCode =
  | "already_applied"
  | "already_resolved"
  | "busy"
  | "conflict"
  | "digest_mismatch"
  | "draining"
  | "expired"
  | "forbidden"
  | "internal"
  | "invalid"
  | "invalid_args"
  | "malformed"
  | "not_found"
  | "not_steerable"
  | "quota_exceeded"
  | "rate_limited"
  | "run_active"
  | "run_ended"
  | "too_large"
  | "too_many_pending"
  | "unauthorized"
  | "unavailable"
  | "unknown_agent"
  | "unknown_call"
  | "unknown_command";
