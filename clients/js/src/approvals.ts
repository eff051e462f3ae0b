/** What waits for a person, as objects that can be answered: the same object as long as it is open. */

import type { ApprovalRequired, InputRequired, Receipt } from "./protocol.js";

export type RememberScope = "run" | "thread" | "always";
/** Approve the same again without asking: how far, and optionally for how long. */
export type RememberOption = RememberScope | { scope: RememberScope; expiresInS?: number };

export interface ApproveOptions {
  /** Replaces these top-level arguments. */
  args?: Record<string, unknown>;
  /** The digest of what was seen; if it is another one now, the answer is refused as `digest_mismatch`. */
  argsDigest?: string;
  remember?: RememberOption;
}

export interface DenyOptions {
  /** Shown to the model. */
  reason?: string;
}

export interface Approval {
  readonly id: string;
  readonly runId: string;
  readonly callId: string;
  readonly tool: string;
  readonly label: string;
  /** Why it is asked: `policy`, `unknown_outcome`, `changed`, … */
  readonly reason: string;
  readonly risk: ApprovalRequired["risk"];
  readonly args: Readonly<Record<string, unknown>>;
  readonly argsSchema: Readonly<Record<string, unknown>> | undefined;
  readonly editable: boolean;
  readonly argsDigest: string;
  /** What it will do (`diff`, `text`, …), where the tool says so. */
  readonly preview: { readonly kind: string; readonly data: unknown } | undefined;
  readonly decisions: readonly string[];
  readonly rememberScopes: readonly string[];
  /** By this client's clock, whatever it is set to. */
  readonly expiresAt: Date;
  /** What happens when the time is over: `deny` or `fail`. */
  readonly onExpire: string;
  /** Approves exactly what was shown: its digest goes with the answer. */
  approve(options?: { remember?: RememberOption }): Promise<Receipt>;
  deny(reason?: string): Promise<Receipt>;
  /** Approves with these top-level arguments replaced. Rejected with `invalid_args` and `errors` it stays open. */
  edit(args: Record<string, unknown>, options?: { remember?: RememberOption }): Promise<Receipt>;
}

export interface Question {
  readonly id: string;
  readonly runId: string;
  readonly question: string;
  readonly choices: readonly string[] | undefined;
  /** JSON Schema that an answer must fit. */
  readonly schema: Readonly<Record<string, unknown>> | undefined;
  readonly expiresAt: Date;
  answer(value: unknown): Promise<Receipt>;
}

/** What answering needs of the run. */
export interface Answering {
  readonly id: string;
  approve(approvalId: string, options?: ApproveOptions): Promise<Receipt>;
  deny(approvalId: string, options?: DenyOptions): Promise<Receipt>;
  answer(inputId: string, value: unknown): Promise<Receipt>;
}

export function approvalOf(run: Answering, localTime: (time: string) => Date, required: ApprovalRequired): Approval {
  const { approval_id: id, args_digest: argsDigest } = required;
  return {
    id,
    runId: run.id,
    callId: required.tool_call_id,
    tool: required.tool,
    label: required.label,
    reason: required.reason,
    risk: required.risk,
    args: required.args,
    argsSchema: required.args_schema,
    editable: required.editable,
    argsDigest,
    preview: required.preview,
    decisions: required.decisions,
    rememberScopes: required.remember_scopes,
    // Asked each time: what is known of the two clocks changes when the connection does.
    get expiresAt() {
      return localTime(required.expires_at);
    },
    onExpire: required.on_expire,
    approve: (options) => run.approve(id, { ...options, argsDigest }),
    deny: (reason) => run.deny(id, reason === undefined ? {} : { reason }),
    edit: (args, options) => run.approve(id, { ...options, args, argsDigest }),
  };
}

export function questionOf(run: Answering, localTime: (time: string) => Date, required: InputRequired): Question {
  const { input_id: id } = required;
  return {
    id,
    runId: run.id,
    question: required.question,
    choices: required.choices,
    schema: required.schema,
    get expiresAt() {
      return localTime(required.expires_at);
    },
    answer: (value) => run.answer(id, value),
  };
}
