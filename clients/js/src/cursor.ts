/**
 * Where a reader stands in one run's log, and what an event that arrives means to it. Pure.
 *
 * One rule (PROTOCOL §4): the next event is the one with `(from ?? seq) == cursor + 1`.
 */

import type { ClientTool, RunEvent } from "./protocol.js";

export type Replay = "full" | "merged" | "snapshot";

export function place(seq: number, event: RunEvent): "next" | "old" | "gap" {
  if ((event.from ?? event.seq) === seq + 1) return "next";
  return event.seq <= seq ? "old" : "gap";
}

/** One followed run on the connection. */
export interface Cursor {
  readonly runId: string;
  seq: number;
  epoch: string | undefined;
  replay: Replay;
  tools: readonly ClientTool[];
  /** The newest attach of this connection; what came before its `run.attached` is not this reader's. */
  attachId: string | undefined;
  attached: boolean;
  wasAttached: boolean;
  /** Heartbeats since the attach that is not answered. */
  beats: number;
  /** Attaches in a row that brought a hole instead of the next event. */
  gaps: number;
  /** What the attach, or a reset, said to be there: with it the reader has caught up. */
  head: number;
  caughtUp: boolean;
  /** The run has another history than the cursor is of: a reset comes before anything else. */
  foreign: boolean;
  status: string;
}
