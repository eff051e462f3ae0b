/** One run, as an application follows and steers it. Made by `client.start` and `client.attach`. */

import type { Approval, ApproveOptions, DenyOptions, Question } from "./approvals.js";
import type { Receipt, RunEvent, RunReset, View } from "./protocol.js";
import type { ToolDefinition, ToolHandler } from "./tools.js";

/** What happens to the view, in order. */
export type Update =
  | { readonly kind: "event"; readonly event: RunEvent }
  /** Forget what you have; this is what there is. `reason`: PROTOCOL §4, or `joined` for a listener that came late. */
  | { readonly kind: "reset"; readonly reason: RunReset["reason"] | "joined"; readonly view: View }
  | { readonly kind: "caughtUp" }
  | { readonly kind: "attached" };

export interface CancelOptions {
  /** `after_step` lets the running step finish. A second cancel escalates. */
  mode?: "now" | "after_step";
  /** Only this call; the run goes on. */
  toolCallId?: string;
  reason?: string;
}

export interface CorrectOptions {
  /** When it is said to the agent: at the next safe point (default), by interrupting, or when the plan is done. */
  mode?: "next_step" | "now" | "when_idle";
  stepId?: string;
  replan?: boolean;
  /** `start`: a new run in the thread if this one has ended. `client.run(receipt.run_id)` is it then. */
  ifEnded?: "reject" | "start";
}

export interface Run extends AsyncIterable<RunEvent> {
  readonly id: string;
  /** The fold of the whole log so far, never null: PROTOCOL §6's beginning until something has come. */
  readonly view: View;
  /** The server sends this run's events now. */
  readonly attached: boolean;
  /** What had happened before has come; from here it is live. */
  readonly caughtUp: boolean;
  readonly ended: boolean;
  /** What this principal may do now, of `correct`, `cancel`, `approve`, `input`. */
  readonly can: readonly string[];
  /** Why nothing more comes although the run has not ended. */
  readonly error: Error | undefined;
  /** Open ones, oldest first: the same object as long as it is open, the same list as long as nothing changed. */
  readonly approvals: readonly Approval[];
  readonly questions: readonly Question[];
  /** The final view. Rejects if it can never come. */
  readonly finished: Promise<View>;
  /** Called after changes, at most once per animation frame. Returns what ends it. */
  subscribe(listener: () => void): () => void;
  /** Called at once for each update of the view. A late listener begins with a reset to the view as it is. */
  onUpdate(listener: (update: Update) => void): () => void;
  /**
   * Every event once and in order, from `sinceSeq` on; done after the terminal one. Each iterator has its own place.
   * Rejects with the code `reset` if the server does not have the events any more.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<RunEvent>;
  cancel(options?: CancelOptions): Promise<Receipt>;
  correct(text: string, options?: CorrectOptions): Promise<Receipt>;
  /** Takes a correction back that has not been applied. */
  revoke(correctionId: string): Promise<Receipt>;
  approve(approvalId: string, options?: ApproveOptions): Promise<Receipt>;
  deny(approvalId: string, options?: DenyOptions): Promise<Receipt>;
  answer(inputId: string, value: unknown): Promise<Receipt>;
  /** Runs this tool here, from now on and after every reconnect. Returns what takes the offer back. */
  registerTool(tool: string | ToolDefinition, handler: ToolHandler): () => void;
  /** Follow it no longer. Never cancels. */
  detach(): void;
}
