/** Runs that wait for an answer and are not followed by this page. */

import type { Client } from "@midstream/client";

export interface WaitingRun {
  readonly runId: string;
  readonly name: string;
  /** Approvals and questions that are open. */
  readonly count: number;
}

/** Milliseconds between two looks: somebody who looks elsewhere is told soon, and the server hardly notices. */
export const LOOK_EVERY_MS = 15_000;
/** Runs looked at: more than anybody can answer at once. */
const MAX_RUNS = 50;

/** Asks once. A server that cannot answer now counts as nothing new: undefined. */
export async function waitingRuns(client: Client, signal: AbortSignal): Promise<readonly WaitingRun[] | undefined> {
  try {
    const { items } = await client.rest.runs({ status: "waiting", limit: MAX_RUNS, signal });
    return items
      .map((each) => ({
        runId: each.run_id,
        name: each.title ?? `${each.agent} ${each.run_id}`,
        count: each.pending.filter(({ kind }) => kind !== "tool").length,
      }))
      .filter(({ count }) => count > 0);
  } catch {
    return undefined;
  }
}
