/**
 * What a client rejects with.
 *
 * MidstreamError    anything this client says; narrow by `code`
 * ├── Refused       the server said no: the rejected receipt of a command, or the error of an HTTP request
 * └── Disconnected  the connection is gone for good, or was never made
 */

import type { FieldError, Receipt, RefusalCode } from "./protocol.js";

/** Codes of PROTOCOL §3 and this client's own; the set is open. */
export type ErrorCode =
  | RefusalCode
  | "bad_address"
  | "closed"
  | "detached"
  | "disconnected"
  | "no_transport"
  | "reset"
  | "unanswered"
  | (string & {});

export class MidstreamError extends Error {
  override readonly name: string = "MidstreamError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, text: string, options?: { cause?: unknown }) {
    super(text, options);
    this.code = code;
  }
}

/** The server refused. `message` is its text, made for people. */
export class Refused extends MidstreamError {
  override readonly name = "Refused";
  /** Which fields are wrong, with `invalid_args`. */
  readonly errors: readonly FieldError[];
  /** Who was first, and how: with `already_resolved`. */
  readonly resolution: Readonly<Record<string, unknown>> | undefined;
  /** The same again later may succeed. */
  readonly retryable: boolean;
  /** The command's id; absent for a plain HTTP request. */
  readonly commandId: string | undefined;
  /** HTTP status; absent for a receipt that came over a WebSocket. */
  readonly status: number | undefined;

  constructor(refusal: Partial<Omit<Receipt, "status">>, status?: number) {
    const code = refusal.code ?? "invalid";
    super(code, refusal.text || code);
    this.errors = refusal.errors ?? [];
    this.resolution = refusal.resolution;
    this.retryable = refusal.retryable ?? false;
    this.commandId = refusal.command_id;
    this.status = status;
  }
}

/** No connection, and none will come by itself. `closeCode` as in PROTOCOL §8; 1000: closed by this client. */
export class Disconnected extends MidstreamError {
  override readonly name = "Disconnected";
  readonly closeCode: number;
  readonly reason: string;

  constructor(closeCode: number, reason: string, code: ErrorCode = "disconnected") {
    super(code, `${reason || "disconnected"} (${closeCode})`);
    this.closeCode = closeCode;
    this.reason = reason;
  }
}
