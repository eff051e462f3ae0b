/** What the core wants done. `connection` does it, in this order. */

import type { Receipt, RunAttached, RunEvent, RunReset } from "./protocol.js";

/** What comes of a followed run: each event once and in order, from the cursor that it was attached with. */
export type Arrival =
  | { readonly kind: "event"; readonly event: RunEvent }
  | { readonly kind: "attached"; readonly attached: RunAttached }
  | { readonly kind: "reset"; readonly reset: RunReset }
  | { readonly kind: "caughtUp" };

export type Action =
  | { readonly do: "send"; readonly text: string }
  /** End the link now; nothing of it counts any more. */
  | { readonly do: "drop"; readonly code: number }
  | { readonly do: "deliver"; readonly runId: string; readonly arrival: Arrival }
  /** The receipt of a remembered command. */
  | { readonly do: "answer"; readonly commandId: string; readonly receipt: Receipt }
  /** A command made (or found) a run, and this connection is attached to it. */
  | { readonly do: "adopt"; readonly runId: string; readonly commandId: string }
  /** Nothing more of this run will come: it is over, or why not. */
  | { readonly do: "detached"; readonly runId: string; readonly error: Error | undefined }
  | { readonly do: "ready" }
  /** Connect (again) after so long. */
  | { readonly do: "connect"; readonly delayMs: number; readonly reason: string }
  /** The token is about to expire: `refresh` with a new one. */
  | { readonly do: "renew" }
  /** The server did not understand something of this client: a defect of either. */
  | { readonly do: "warn"; readonly text: string }
  /** The end: every waiter gets `error`. */
  | { readonly do: "fail"; readonly error: Error };
